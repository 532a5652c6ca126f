//! Where a run may speak to, by name.

use std::fmt;

/// A host's name in one spelling: ASCII, lower case, two labels or more, no dot at its end, and never an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

/// Why a text is no host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// An address, in whatever spelling.
    #[error("it is an address; hosts are named here by their names")]
    Address,
    /// Letters beyond ASCII.
    #[error("it has letters beyond ASCII; write them as punycode (`xn--...`)")]
    NotAscii,
    /// A dot at the end: to some the same name, to others another.
    #[error("it ends with a dot; leave it out")]
    DotAtEnd,
    /// One label alone, which a resolver may complete in its own way.
    #[error("it has one label only; write the whole name")]
    OneLabel,
    /// An empty or too long name or label.
    #[error("a label has 1 to 63 characters and a name at most 253")]
    Length,
    /// A character that no host name has.
    #[error("a host name has letters, digits, dots, and hyphens within labels")]
    Character,
}

impl HostName {
    /// Returns the name that `text` spells.
    ///
    /// # Errors
    /// When it spells none, or an address.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        if !text.is_ascii() {
            return Err(HostNameError::NotAscii);
        }
        if text.contains([':', '[', ']']) {
            return Err(HostNameError::Address);
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
            return Err(HostNameError::Character);
        }
        let name = text.to_ascii_lowercase();
        // What ends in a number is an address to somebody: `127.1`, `2130706433`, `0x7f.1`, also with a dot after it.
        let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        if is_number(last) {
            return Err(HostNameError::Address);
        }
        if name.ends_with('.') {
            return Err(HostNameError::DotAtEnd);
        }
        if name.len() > 253 || name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(HostNameError::Length);
        }
        if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
            return Err(HostNameError::Character);
        }
        if !name.contains('.') {
            return Err(HostNameError::OneLabel);
        }
        Ok(Self(name))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As those read it who take an address's parts in decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || (!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The host's name.
    pub host: HostName,
    /// The port, never 0.
    pub port: u16,
}

/// Why a text names no host and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The host is none.
    #[error(transparent)]
    Host(#[from] HostNameError),
    /// The port is missing or none.
    #[error("a port is a number from 1 to 65535, after a colon")]
    Port,
}

impl Target {
    /// Returns the target that `text` spells as `name:port`, or as `name` alone where there is an `ordinary` port.
    ///
    /// # Errors
    /// When it spells none.
    pub fn parse(text: &str, ordinary: Option<u16>) -> Result<Self, TargetError> {
        if text.contains(['[', ']']) || text.matches(':').count() > 1 {
            return Err(HostNameError::Address.into());
        }
        let Some((host, port)) = text.split_once(':') else {
            return Ok(Self { host: HostName::parse(text)?, port: ordinary.ok_or(TargetError::Port)? });
        };
        Ok(Self { host: HostName::parse(host)?, port: port_of(port).ok_or(TargetError::Port)? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One spelling: digits, no sign, no zero in front.
fn port_of(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// The destinations that a run may speak to: `name:port`, and `*.name:port` for every name below a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed(Whom);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    Everybody,
    These(Vec<Destination>),
}

impl Default for Whom {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    target: Target,
    names: Names,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// The target's own.
    Itself,
    /// Those with one or more labels before the target's.
    Below,
}

/// Why a list of destinations is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowedError {
    /// One entry is no destination.
    #[error("`{entry}` is no destination: {why}")]
    Entry {
        /// The entry as it was given.
        entry: String,
        /// What is wrong with it.
        why: TargetError,
    },
    /// Too many.
    #[error("a run may have at most {} destinations", Allowed::MOST)]
    TooMany,
}

impl Allowed {
    /// How many destinations a list may have: a refusal names them all.
    pub const MOST: usize = 64;

    /// Returns every host by its name, at every port. What no run may speak to is none of them, wherever a name leads.
    pub const fn everybody() -> Self {
        Self(Whom::Everybody)
    }

    /// Returns the list of the destinations that `entries` spell.
    ///
    /// # Errors
    /// When one of them spells none, or there are too many.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, AllowedError> {
        let mut list = Vec::new();
        for entry in entries {
            let (names, rest) = match entry.strip_prefix("*.") {
                Some(rest) => (Names::Below, rest),
                None => (Names::Itself, entry),
            };
            // A star before one label would be `*.com`: a host's name has two, so the same check refuses it.
            let target =
                Target::parse(rest, None).map_err(|why| AllowedError::Entry { entry: entry.to_owned(), why })?;
            if list.len() >= Self::MOST {
                return Err(AllowedError::TooMany);
            }
            list.push(Destination { target, names });
        }
        Ok(Self(Whom::These(list)))
    }

    /// Returns how many these are, for a record that names nobody.
    pub(crate) fn in_short(&self) -> String {
        match &self.0 {
            Whom::Everybody => "any host but this one, by name".to_owned(),
            Whom::These(list) => format!("{} hosts with their ports, by name", list.len()),
        }
    }

    /// Whether `target` is one of these destinations.
    pub fn allows(&self, target: &Target) -> bool {
        let Whom::These(list) = &self.0 else { return true };
        list.iter().any(|known| {
            let named = match known.names {
                Names::Itself => known.target.host == target.host,
                Names::Below => {
                    let below = target.host.as_str().strip_suffix(known.target.host.as_str());
                    below.is_some_and(|labels| labels.ends_with('.'))
                }
            };
            named && known.target.port == target.port
        })
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Whom::These(list) = &self.0 else { return f.write_str("any host but this one") };
        if list.is_empty() {
            return f.write_str("nothing");
        }
        for (index, known) in list.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let star = if known.names == Names::Below { "*." } else { "" };
            write!(f, "{comma}{star}{}", known.target)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text, None).unwrap()
    }

    #[test]
    fn a_name_has_one_spelling_and_an_address_has_none() {
        assert_eq!(HostName::parse("Example.ORG").unwrap().as_str(), "example.org");
        assert_eq!(HostName::parse("xn--bcher-kva.example").unwrap().as_str(), "xn--bcher-kva.example");
        assert_eq!(HostName::parse("1.2.3.a4").unwrap().as_str(), "1.2.3.a4");
        use HostNameError::*;
        for (text, why) in [
            ("127.0.0.1", Address),
            ("127.0.0.1.", Address),
            ("127.1", Address),
            ("2130706433", Address),
            ("017700000001", Address),
            ("0177.0.0.1", Address),
            ("0x7f000001", Address),
            ("0x7f.1", Address),
            ("0X7F.0X1", Address),
            ("1.0x", Address),
            ("example.1", Address),
            ("::1", Address),
            ("[::1]", Address),
            ("[::ffff:127.0.0.1]", Address),
            ("::ffff:7f00:1", Address),
            ("fe80::1%eth0", Address),
            ("bücher.example", NotAscii),
            ("１２７.0.0.1", NotAscii),
            ("example。org", NotAscii),
            ("example.org.", DotAtEnd),
            ("example.org..", DotAtEnd),
            ("localhost", OneLabel),
            ("", Length),
            (".org", Length),
            ("a..org", Length),
            ("a.example.org\0", Character),
            ("a.example.org\0.evil.org", Character),
            ("a b.org", Character),
            ("a_b.org", Character),
            ("a%2eorg", Character),
            ("user@example.org", Character),
            ("example.org/", Character),
            ("example.org\\", Character),
            ("example.org\r\n", Character),
            ("*.example.org", Character),
            ("-a.org", Character),
            ("a-.org", Character),
        ] {
            assert_eq!(HostName::parse(text), Err(why), "{text:?}");
        }
        assert_eq!(HostName::parse(&format!("{}.org", "a".repeat(64))), Err(Length));
        assert_eq!(HostName::parse(&format!("{}org", "a.".repeat(126))), Err(Length));
        assert!(HostName::parse(&format!("{}a", "a.".repeat(126))).is_ok());
    }

    #[test]
    fn a_port_is_one_number_in_one_spelling() {
        assert_eq!(target("example.org:65535").port, 65535);
        assert_eq!(Target::parse("example.org", Some(80)).unwrap().port, 80);
        for text in ["example.org", "example.org:", "example.org:0", "example.org:065", "example.org:+80", "a.b:65536"]
        {
            assert_eq!(Target::parse(text, None), Err(TargetError::Port), "{text}");
        }
        for text in ["example.org:", "example.org:http", "example.org: 80", "example.org:8\u{663}"] {
            assert_eq!(Target::parse(text, Some(80)), Err(TargetError::Port), "{text}");
        }
        let address = Err(TargetError::Host(HostNameError::Address));
        for text in ["[::1]:443", "::1:443", "example.org:443:443", "10.0.0.1:443"] {
            assert_eq!(Target::parse(text, None), address, "{text}");
        }
    }

    #[test]
    fn a_star_stands_for_names_below_and_never_for_all_of_a_suffix() {
        let allowed = Allowed::parse(["example.org:443", "*.Example.NET:8443"]).unwrap();
        for text in ["example.org:443", "EXAMPLE.org:443", "a.example.net:8443", "a.b.example.net:8443"] {
            assert!(allowed.allows(&target(text)), "{text}");
        }
        for text in [
            "example.org:80",
            "a.example.org:443",
            "example.net:8443",
            "aexample.net:8443",
            "a.example.net:443",
            "example.net.evil.org:8443",
            "example.org.evil.org:443",
        ] {
            assert!(!allowed.allows(&target(text)), "{text}");
        }
        for entry in
            ["*.com:443", "*:443", "*.*.example.org:443", "a.*.example.org:443", "*example.org:443", "*.:443", "*."]
        {
            assert!(matches!(Allowed::parse([entry]), Err(AllowedError::Entry { .. })), "{entry}");
        }
        assert!(!Allowed::default().allows(&target("example.org:443")));
        assert!(Allowed::everybody().allows(&target("example.org:443")));
    }

    #[test]
    fn a_list_is_bounded_says_what_is_wrong_and_shows_itself() {
        let allowed = Allowed::parse(["Example.org:443", "*.example.net:8443"]).unwrap();
        assert_eq!(allowed.to_string(), "example.org:443, *.example.net:8443");
        assert_eq!(Allowed::default().to_string(), "nothing");
        assert_eq!(Allowed::everybody().to_string(), "any host but this one");
        let refused = Allowed::parse(["example.org:443", "10.0.0.1:443"]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`10.0.0.1:443` is no destination: it is an address; hosts are named here by their names"
        );
        assert_eq!(Allowed::parse(vec!["example.org:443"; 65]), Err(AllowedError::TooMany));
    }
}
