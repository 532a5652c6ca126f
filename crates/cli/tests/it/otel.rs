//! Spans for a collector: `cargo test -p provara-cli --features otel otel`. Not in the gate, because of what it has to build.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::served::Served;

/// A request that a collector got.
struct Got {
    head: String,
    body: Vec<u8>,
}

/// A collector that takes everything until its process ends.
fn collector() -> (String, mpsc::Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, got) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            // Before the answer: whoever sees the server end has what it sent.
            if sender.send(Got { head, body }).is_err() {
                return;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
        }
    });
    (address, got)
}

fn stop(server: &mut Served) {
    kill(Pid::from_raw(i32::try_from(server.process.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(server.process.wait().unwrap().success());
}

fn holds(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_collector_gets_each_request_as_part_of_its_callers_trace_and_nothing_more() {
    let (address, got) = collector();
    // Nothing of it is on the level of the log.
    let mut server = Served::with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &address), ("AGENT_HUB_LOG_LEVEL", "ERROR")]);
    let agent = server.agent();
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let plan = json!({ "command": "make zmark", "note": "zmark" }).to_string();
    assert_eq!(server.ask("POST", "/plan", &[("x-agent-token", &agent), ("traceparent", traceparent)], &plan).0, 200);
    let unsampled = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00";
    server.ask("GET", "/zmark?zmark", &[("x-agent-token", &agent), ("traceparent", unsampled)], "");
    server.by(&server.operator(), "GET", "/commands/zmark", &Value::Null);
    stop(&mut server);
    // All that was to be sent was sent before the end.
    let all: Vec<Got> = got.try_iter().collect();
    let body: Vec<u8> = all.iter().flat_map(|got| got.body.clone()).collect();
    assert!(all.iter().all(|got| got.head.starts_with("POST /v1/traces HTTP/1.1\r\n")), "{}", all[0].head);
    assert!(all[0].head.to_lowercase().contains("content-type: application/x-protobuf\r\n"), "{}", all[0].head);
    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736u128.to_be_bytes();
    let parent = 0x00f0_67aa_0ba9_02b7u64.to_be_bytes();
    for expected in [&trace[..], &parent, b"POST /plan", b"GET /commands/{id}", b"provara.principal", b"operator"] {
        assert!(holds(&body, expected), "{}", String::from_utf8_lossy(expected));
    }
    assert!(!holds(&body, &[0xaa; 16]), "the caller keeps no trace of its own");
    for secret in [&b"zmark"[..], agent.as_bytes()] {
        assert!(!holds(&body, secret), "{}", String::from_utf8_lossy(secret));
    }
}

#[test]
fn a_collector_that_is_not_there_or_not_an_address_stops_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, line) in [
        (format!("http://{free}"), "could not send spans"),
        ("http://user:zmark@[".to_owned(), "the OTEL_EXPORTER_OTLP_… variables cannot be used"),
    ] {
        let mut server = Served::with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
        assert_eq!(server.ask("GET", "/status", &[], "").0, 200);
        stop(&mut server);
        let log = fs::read_to_string(server.root.path().join("server.log")).unwrap();
        assert!(log.contains(line), "{log}");
        assert!(!log.contains("zmark"), "{log}");
    }
}
