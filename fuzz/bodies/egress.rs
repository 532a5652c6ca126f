//! What must hold for whatever a run says to the proxy that is its way out.

use provara_runner::egress::{Asked, Head, Hello, Target, read_hello};

/// What heads of requests are made of.
pub const HEADS: &[&str] = &[
    "GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "POST http://example.org:8080/a?b=c HTTP/1.1\r\nHost: example.org:8080\r\nContent-Length: 4\r\nX-A: b\r\n\r\n",
    "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
    "GET http://example.org HTTP/1.0\r\n\r\n",
    "PUT http://example.org/ HTTP/1.1\r\nHost: example.org\r\nConnection: close, X-Gone\r\nX-Gone: 1\r\nTE: x\r\n\r\n",
    "Host: example.org\r\n",
    "Host: evil.org\r\n",
    "host:\texample.org:80\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: +5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: host\r\n",
    "Connection: content-length\r\n",
    "Proxy-Authorization: Basic eA==\r\n",
    "GET http://user@example.org:80/ HTTP/1.1\r\n",
    "GET http://127.0.0.1/ HTTP/1.1\r\n",
    "GET http://[::1]/ HTTP/1.1\r\n",
    "GET http://0x7f.1/ HTTP/1.1\r\n",
    "CONNECT 2130706433:443 HTTP/1.1\r\n",
    " folded: on\r\n",
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "HTTP/1.1",
];

/// Refused, or for one name by which nothing else can be meant; what goes on is read in one way by whoever reads it next.
pub fn head(bytes: &[u8]) {
    let Ok(Head { target, asked }) = Head::parse(bytes) else { return };
    assert!(bytes.len() <= Head::MOST);
    assert_eq!(Target::parse(&target.to_string(), None).as_ref(), Ok(&target), "a target that is spelled otherwise");
    let Asked::Plain { head, body } = asked else { return };
    let text = String::from_utf8_lossy(&head);
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])), "{text:?}");
    // One head, and nothing behind it.
    assert_eq!(lines.iter().position(|line| line.is_empty()), Some(lines.len() - 2), "{text:?}");
    let first: Vec<&str> = lines[0].split(' ').collect();
    assert!(first.len() == 3 && first[1].starts_with('/') && first[2] == "HTTP/1.1", "{text:?}");
    let named = |name: &str| -> Vec<&str> {
        let headers = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        headers.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    };
    let host = if target.port == 80 { target.host.to_string() } else { target.to_string() };
    assert_eq!(named("host"), [host.as_str()], "{text:?}");
    assert_eq!(named("connection"), ["close"], "{text:?}");
    assert!(named("transfer-encoding").is_empty() && named("upgrade").is_empty(), "{text:?}");
    assert!(lines.iter().all(|line| !line.to_ascii_lowercase().starts_with("proxy-")), "{text:?}");
    let length = named("content-length");
    assert!(length.len() <= 1 && (body == 0 || length == [body.to_string().as_str()]), "{text:?}");
    // Asked of us again, it is the same request.
    let again = String::from_utf8_lossy(&head).replacen(first[1], &format!("http://{host}{}", first[1]), 1);
    if head.is_ascii() && again.len() <= Head::MOST {
        assert_eq!(Head::parse(again.as_bytes()), Ok(Head { target, asked: Asked::Plain { head, body } }));
    }
}

/// First messages of TLS: one for a name, in one record and in many; one for two names, one for none, one for an address.
pub fn hellos() -> Vec<Vec<u8>> {
    let one = message(&[sni(&["example.org"])]);
    let other = [vec![0, 43], vector(2, &[2, 3, 4])].concat();
    vec![
        records(&one, 16_384),
        records(&one, 7),
        [records(&one, 16_384), vec![20, 3, 3, 0, 1, 1]].concat(),
        records(&message(&[other.clone(), sni(&["example.org"]), other.clone()]), 50),
        records(&message(&[sni(&["example.org", "evil.org"])]), 16_384),
        records(&message(&[sni(&["example.org"]), sni(&["evil.org"])]), 16_384),
        records(&message(&[other]), 16_384),
        records(&message(&[sni(&["127.0.0.1"])]), 16_384),
        b"SSH-2.0-x\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]
}

/// What was said of a beginning is not taken back by what follows, and nothing is waited for without an end.
pub fn hello(bytes: &[u8]) {
    let whole = read_hello(bytes);
    if let Hello::Named(name) = &whole {
        let spelled: Vec<u8> = bytes.iter().map(u8::to_ascii_lowercase).collect();
        // Headers of records may lie within the name, but its letters came in this order.
        let mut letters = spelled.iter();
        assert!(name.as_str().bytes().all(|letter| letters.any(|known| *known == letter)), "{name} is in no byte");
    }
    assert!(whole != Hello::Partial || bytes.len() < 1 << 14, "more is waited for after {} bytes", bytes.len());
    for end in (0..=bytes.len()).step_by(bytes.len() / 16 + 1) {
        let before = read_hello(bytes.get(..end).unwrap_or_default());
        assert!(before == Hello::Partial || before == whole, "{before:?} after {end} bytes became {whole:?}");
    }
}

fn vector(width: usize, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [length.get(length.len() - width..).unwrap_or_default(), content].concat()
}

fn sni(names: &[&str]) -> Vec<u8> {
    let entries: Vec<u8> = names.iter().flat_map(|name| [vec![0], vector(2, name.as_bytes())].concat()).collect();
    [vec![0, 0], vector(2, &vector(2, &entries))].concat()
}

fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let random = vec![7; 32];
    let rest = [vector(1, &[5; 32]), vector(2, &[0x13, 1]), vector(1, &[0]), vector(2, &extensions.concat())];
    [vec![1], vector(3, &[vec![3, 3], random, rest.concat()].concat())].concat()
}

fn records(message: &[u8], most: usize) -> Vec<u8> {
    message.chunks(most).flat_map(|part| [vec![22, 3, 1], vector(2, part)].concat()).collect()
}
