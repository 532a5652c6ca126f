//! From a name to its addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::allowed::Target;

/// A lookup under way.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Who says which addresses a name has.
pub trait Resolve: Send + Sync + 'static {
    /// Returns the addresses of a target's name, with its port.
    fn resolve<'a>(&'a self, target: &'a Target) -> Lookup<'a>;
}

/// How many lookups of one run may be under way, given-up ones included.
const LOOKUPS: usize = 8;

/// This host's own resolver. Each run has one of its own.
#[derive(Debug)]
pub struct SystemResolver(Arc<Semaphore>);

impl Default for SystemResolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS)))
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, target: &'a Target) -> Lookup<'a> {
        Box::pin(self.look_up(target))
    }
}

impl SystemResolver {
    async fn look_up(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        // The dot keeps the resolver from completing the name by a search list: on some hosts `api.example.org` is first
        // looked for below the company's own domain.
        let question = (format!("{}.", target.host), target.port);
        let place = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        // The system's lookup blocks a thread and cannot be given up. Its place is free again when it really ends, else a
        // run that asks a silent name server could take all threads of the server.
        let lookup = tokio::task::spawn_blocking(move || {
            let _place = place;
            question.to_socket_addrs().map(Iterator::collect)
        });
        lookup.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_whole_and_what_does_not_exist_has_no_address() {
        let resolver = SystemResolver::default();
        // RFC 6761: no resolver finds an address for it.
        let nobody = Target::parse("nobody.invalid:443", None).unwrap();
        assert!(resolver.resolve(&nobody).await.is_err());
        assert_eq!(resolver.0.available_permits(), LOOKUPS);
    }
}
