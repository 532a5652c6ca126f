//! The run's end of its way out: a listener on the loopback of the run's own network namespace.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use nix::cmsg_space;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind,
    getsockopt, recv, recvmsg, sendmsg, sendto, socket, sockopt,
};

use crate::sys;

/// Where the listener is, in each run's own namespace. Fixed, so that a run's environment is known before the namespace is.
pub const PORT: u16 = 3128;

/// Returns the variables by which programs find the proxy.
///
/// What a run says to its own loopback is between its own processes, so it does not go through the proxy. `ALL_PROXY` is not
/// set: what is no HTTP would only be refused in a more puzzling way.
pub fn environment() -> Vec<(String, String)> {
    let proxy = format!("http://127.0.0.1:{PORT}");
    let own = "localhost,127.0.0.1,::1";
    let all = [("HTTP_PROXY", &*proxy), ("HTTPS_PROXY", &*proxy), ("NO_PROXY", own)];
    let lower = all.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned()));
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).chain(lower).collect()
}

/// Makes the listener in the network namespace of the calling thread, and brings loopback up there for it.
///
/// The run's supervisor calls this after it has made the namespace and before the command exists.
///
/// # Errors
/// When the namespace has another way out already, or loopback or the listener cannot be had.
pub fn listen_in_run() -> io::Result<OwnedFd> {
    bring_up_own_loopback()?;
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?.into())
}

/// Brings up loopback in the network namespace of the calling thread, where that has no other way out.
pub(crate) fn bring_up_own_loopback() -> io::Result<()> {
    if let Some(other) = other_interface()? {
        let message = format!("this network namespace is not a run's own: `{other}` is up");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    bring_up_loopback()
}

/// An interface that is up beside loopback. Some kernels put tunnels into every namespace, which are down.
fn other_interface() -> io::Result<Option<String>> {
    let up = |flags: InterfaceFlags| flags.contains(InterfaceFlags::IFF_UP);
    let mut others = nix::ifaddrs::getifaddrs()?
        .filter(|interface| up(interface.flags) && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK));
    Ok(others.next().map(|interface| interface.interface_name))
}

/// Asks the kernel by netlink, which needs no unsafe code where the older `ioctl` would.
fn bring_up_loopback() -> io::Result<()> {
    const LENGTH: u32 = 32;
    const LOOPBACK: u32 = 1; // The kernel gives it the first number in every namespace.
    const REQUEST_AND_ANSWER: u16 = 5; // NLM_F_REQUEST | NLM_F_ACK
    let up = u32::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // `struct nlmsghdr`: length, type, flags, sequence, port. Then `struct ifinfomsg`: family and type (any), number, flags,
    // and which flags to change.
    let request = [
        &LENGTH.to_ne_bytes()[..],
        &libc::RTM_NEWLINK.to_ne_bytes(),
        &REQUEST_AND_ANSWER.to_ne_bytes(),
        &[0; 8],
        &[0; 4],
        &LOOPBACK.to_ne_bytes(),
        &up.to_ne_bytes(),
        &up.to_ne_bytes(),
    ]
    .concat();
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    sendto(netlink.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // `struct nlmsgerr` after the header: the error's number, negated, or 0.
    let error = answer.get(..length).and_then(|answer| answer.get(16..20)?.try_into().ok()).map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Hands the listener to the server. Here it is closed: no process of the run holds it.
///
/// # Errors
/// When the other end is gone.
pub fn send_listener(to: &impl AsFd, listener: OwnedFd) -> io::Result<()> {
    let descriptors = [listener.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let iov = [IoSlice::new(b"n")];
    sendmsg::<()>(to.as_fd().as_raw_fd(), &iov, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Takes what [`send_listener`] sent, waiting for it where the socket waits.
///
/// MUST be the only reader of the socket until then: a plain `read` would drop the descriptor.
///
/// # Errors
/// When the other end is gone, or sent anything but a listener on a run's loopback.
pub fn receive_listener(from: &impl AsFd) -> io::Result<TcpListener> {
    let mut byte = [0];
    let mut space = cmsg_space!([i32; 1]);
    let mut iov = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(from.as_fd().as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            received.extend(descriptors.into_iter().map(sys::received));
        }
    }
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no listener came from the run");
    let [listener] = <[OwnedFd; 1]>::try_from(received).map_err(|_| wrong())?;
    if getsockopt(&listener, sockopt::AcceptConn) != Ok(true) {
        return Err(wrong());
    }
    let listener = TcpListener::from(listener);
    let expected = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    if listener.local_addr()? == expected { Ok(listener) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn anything_but_a_runs_listener_is_refused() {
        let sent = |descriptor: OwnedFd| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            send_listener(&theirs, descriptor).unwrap();
            receive_listener(&ours).unwrap_err().kind()
        };
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
        for descriptor in [OwnedFd::from(std::fs::File::open("/dev/null").unwrap()), connected.into(), elsewhere.into()]
        {
            assert!(matches!(sent(descriptor), io::ErrorKind::InvalidData));
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"n").unwrap();
        assert_eq!(receive_listener(&ours).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(theirs);
        assert!(receive_listener(&ours).is_err());
    }
}
