//! The name in the first message of TLS, the ClientHello. It is read and never changed: TLS stays between its two ends.

use super::allowed::{HostName, HostNameError};

/// What the start of a tunnel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// More has to come.
    Partial,
    /// A whole ClientHello for this name.
    Named(HostName),
    /// Not one that may pass.
    Refused(HelloError),
}

/// Why the start of a tunnel is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Another protocol.
    #[error("it is another protocol")]
    OtherProtocol,
    /// Longer than is read.
    #[error("its first message is longer than {MOST} bytes")]
    TooLong,
    /// Not as TLS writes it.
    #[error("its first message is malformed")]
    Malformed,
    /// No name in it.
    #[error("it names no host")]
    NoName,
    /// What it names is no host name.
    #[error("its name is refused: {0}")]
    Name(HostNameError),
}

/// The most bytes that are read for a ClientHello, the records around it included.
pub(crate) const MOST: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// Reads the name that the ClientHello at the start of `bytes` asks for.
///
/// MUST be given all bytes from the tunnel's start; what follows the message is not looked at.
pub fn read_hello(bytes: &[u8]) -> Hello {
    let within = bytes.get(..MOST).unwrap_or(bytes);
    match client_hello(within) {
        Ok(Some(message)) => match server_name(&message) {
            Ok(name) => Hello::Named(name),
            Err(why) => Hello::Refused(why),
        },
        Ok(None) if bytes.len() >= MOST => Hello::Refused(HelloError::TooLong),
        Ok(None) => Hello::Partial,
        Err(why) => Hello::Refused(why),
    }
}

/// Puts the message together from the records that it is spread over, once it is whole.
fn client_hello(bytes: &[u8]) -> Result<Option<Vec<u8>>, HelloError> {
    let mut rest = Reader(bytes);
    let mut message = Vec::new();
    loop {
        // As early as possible: whoever speaks another protocol may wait for an answer to its first byte.
        match rest.0 {
            [kind, ..] if *kind != HANDSHAKE => return Err(HelloError::OtherProtocol),
            [_, major, ..] if *major != 3 => return Err(HelloError::OtherProtocol),
            _ => {}
        }
        let Some(_kind_and_version) = rest.take(3) else { return Ok(None) };
        let Some(record) = rest.vector(2) else {
            return match rest.0 {
                // The record's length is known early, and what no record may be long is not waited for.
                [high, low, ..] if !(1..=16384).contains(&u16::from_be_bytes([*high, *low])) => {
                    Err(HelloError::Malformed)
                }
                _ => Ok(None),
            };
        };
        if record.0.is_empty() || record.0.len() > 16384 {
            return Err(HelloError::Malformed);
        }
        message.extend_from_slice(record.0);
        let mut whole = Reader(&message);
        match whole.take(1) {
            Some([CLIENT_HELLO]) => {}
            _ => return Err(HelloError::OtherProtocol),
        }
        if let Some(body) = whole.vector(3) {
            // Another message in the same record: TLS has nothing to say there.
            return if whole.0.is_empty() { Ok(Some(body.0.to_vec())) } else { Err(HelloError::Malformed) };
        }
    }
}

/// Finds the one name in a ClientHello's body, all of which has to be as TLS writes it.
fn server_name(body: &[u8]) -> Result<HostName, HelloError> {
    let mut name = None;
    for (kind, content) in extensions(body).ok_or(HelloError::Malformed)? {
        if kind == SERVER_NAME && name.replace(host_name(content).ok_or(HelloError::Malformed)?).is_some() {
            return Err(HelloError::Malformed);
        }
    }
    let name = std::str::from_utf8(name.ok_or(HelloError::NoName)?);
    HostName::parse(name.map_err(|_| HelloError::Malformed)?).map_err(HelloError::Name)
}

fn extensions(body: &[u8]) -> Option<Vec<(u16, Reader<'_>)>> {
    let mut body = Reader(body);
    let _version_and_random = body.take(2 + 32)?;
    let (_session, _suites, _compressions) = (body.vector(1)?, body.vector(2)?, body.vector(1)?);
    let mut found = Vec::new();
    if body.0.is_empty() {
        return Some(found);
    }
    let mut list = body.vector(2)?;
    while !list.0.is_empty() {
        found.push((list.number(2)?.try_into().ok()?, list.vector(2)?));
    }
    body.0.is_empty().then_some(found)
}

/// The list of names has one entry, as every client writes it: with more, each end could choose its own.
fn host_name(mut extension: Reader<'_>) -> Option<&[u8]> {
    let mut list = extension.vector(2)?;
    let kind = list.take(1)?;
    let name = list.vector(2)?;
    (kind == [HOST_NAME] && list.0.is_empty() && extension.0.is_empty()).then_some(name.0)
}

/// Bytes that are yet to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let bytes = self.take(bytes)?;
        bytes.iter().try_fold(0_usize, |number, byte| number.checked_mul(256)?.checked_add(usize::from(*byte)))
    }

    /// A stretch with its length before it, which has so many bytes. Where it is not whole, nothing is taken.
    fn vector(&mut self, length: usize) -> Option<Reader<'a>> {
        let mut ahead = Reader(self.0);
        let length = ahead.number(length)?;
        let taken = ahead.take(length)?;
        self.0 = ahead.0;
        Some(Reader(taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(width: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - width..], content].concat()
    }

    fn sni(names: &[&str]) -> Vec<u8> {
        let entries: Vec<u8> = names.iter().flat_map(|name| [vec![0], vector(2, name.as_bytes())].concat()).collect();
        [vec![0, 0], vector(2, &vector(2, &entries))].concat()
    }

    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let body = [
            vec![3, 3],
            vec![7; 32],
            vector(1, &[5; 32]),
            vector(2, &[0x13, 1]),
            vector(1, &[0]),
            vector(2, &extensions.concat()),
        ];
        [vec![1], vector(3, &body.concat())].concat()
    }

    fn records(message: &[u8], most: usize) -> Vec<u8> {
        message.chunks(most).flat_map(|part| [vec![22, 3, 1], vector(2, part)].concat()).collect()
    }

    fn name(text: &str) -> Hello {
        Hello::Named(HostName::parse(text).unwrap())
    }

    #[test]
    fn a_name_is_read_once_its_message_is_whole_however_it_is_cut() {
        let other = [vec![0, 43], vector(2, &[2, 3, 4])].concat();
        let message = message(&[other, sni(&["Example.org"])]);
        for most in [1, 2, 7, 50, 16384] {
            let bytes = records(&message, most);
            for end in 0..bytes.len() {
                assert_eq!(read_hello(&bytes[..end]), Hello::Partial, "{end} of {}", bytes.len());
            }
            assert_eq!(read_hello(&bytes), name("example.org"));
            assert_eq!(read_hello(&[&bytes[..], &[20, 3, 3, 0, 1, 1]].concat()), name("example.org"));
        }
    }

    #[test]
    fn what_names_no_host_or_several_is_refused() {
        use HelloError::*;
        let hello = |extensions: &[Vec<u8>]| read_hello(&records(&message(extensions), 16384));
        for (extensions, why) in [
            (vec![], NoName),
            (vec![sni(&["a.org", "b.org"])], Malformed),
            (vec![sni(&["a.org"]), sni(&["a.org"])], Malformed),
            (vec![sni(&[])], Malformed),
            (vec![sni(&["10.0.0.1"])], Name(HostNameError::Address)),
            (vec![sni(&["a.org\0.b.org"])], Name(HostNameError::Character)),
            (vec![sni(&["a.org."])], Name(HostNameError::DotAtEnd)),
            (vec![sni(&[""])], Name(HostNameError::Length)),
            (vec![vec![0, 0, 0, 9, 0, 0]], Malformed),
        ] {
            assert_eq!(hello(&extensions), Hello::Refused(why), "{extensions:?}");
        }
        let whole = message(&[sni(&["a.org"])]);
        // A second message behind it, and a length that leaves something over.
        assert_eq!(read_hello(&records(&[&whole[..], &[1]].concat(), 16384)), Hello::Refused(Malformed));
        let longer = [vec![1], vector(3, &[&whole[4..], &[0]].concat())].concat();
        assert_eq!(read_hello(&records(&longer, 16384)), Hello::Refused(Malformed));
    }

    #[test]
    fn another_protocol_is_known_by_its_first_bytes_and_nothing_is_read_for_ever() {
        use HelloError::*;
        for (bytes, why) in [
            (&b"G"[..], OtherProtocol),
            (b"SSH-2.0-OpenSSH\r\n", OtherProtocol),
            (b"\x80\x2e\x01\x03\x01", OtherProtocol),
            (b"\x17\x03\x03", OtherProtocol),
            (b"\x16\x02", OtherProtocol),
            (b"\x16\x03\x01\x00\x01\x02", OtherProtocol),
            (b"\x16\x03\x01\x00\x00", Malformed),
            (b"\x16\x03\x01\x40\x01", Malformed),
        ] {
            assert_eq!(read_hello(bytes), Hello::Refused(why), "{bytes:?}");
        }
        let endless = records(&[vec![1, 255, 255, 255], vec![0; 20_000]].concat(), 1000);
        assert_eq!(read_hello(&endless[..MOST - 1]), Hello::Partial);
        assert_eq!(read_hello(&endless), Hello::Refused(TooLong));
    }
}
