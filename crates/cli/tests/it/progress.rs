//! How far runs are, as readers of the events see it, and what they wrote, as it is told afterwards.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Read};

use serde_json::{Value, json};

use crate::served::{Served, until};

/// The events of one reader, one after the other: each its lines of `id` and `event`, and its data.
struct Stream(Lines<BufReader<Box<dyn Read>>>);

#[derive(Debug, Default)]
struct Event {
    id: Option<String>,
    kind: String,
    data: Value,
}

impl Stream {
    fn of(server: &Served, token: &str, query: &str) -> Self {
        let url = format!("{}/events{query}", server.base);
        let response = ureq::get(&url).header("x-agent-token", token).call().unwrap();
        let reader: Box<dyn Read> = Box::new(response.into_body().into_reader());
        Self(BufReader::new(reader).lines())
    }

    /// The next event that says something.
    fn event(&mut self) -> Event {
        let mut event = Event::default();
        for line in self.0.by_ref().map_while(Result::ok) {
            match line.split_once(": ") {
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("event", kind)) => kind.clone_into(&mut event.kind),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if event.kind.is_empty() => event = Event::default(),
                _ => return event,
            }
        }
        panic!("the stream of events ended");
    }

    /// The next one that tells how far a run is.
    fn progress(&mut self) -> Value {
        loop {
            let event = self.event();
            if event.kind == "run.progress" {
                assert_eq!(event.id, None, "it is no entry of the log");
                return event.data;
            }
        }
    }
}

fn begun(server: &Served, token: &str, command: &str) -> String {
    let (status, plan) = server.by(token, "POST", "/plan", &json!({ "command": command }));
    assert_eq!(status, 200, "{plan}");
    let id = plan["pending_id"].as_str().unwrap().to_owned();
    let asked = [("x-agent-token", &*server.operator()), ("prefer", "respond-async")];
    assert_eq!(server.ask("POST", &format!("/approve/{id}"), &asked, "").0, 202);
    id
}

#[test]
fn whoever_listens_hears_how_far_their_runs_are_and_nobody_hears_it_again() {
    let server = Served::new();
    let (agent, operator) = (server.agent(), server.operator());
    let (_, made) = server.by(&operator, "POST", "/tokens", &json!({ "name": "other", "roles": ["agent"] }));
    let other = made["token"].as_str().unwrap();
    let wait = "until [ -e go ]; do sleep 0.05; done";
    let mine = begun(&server, &agent, &format!("printf 12345; printf 123 >&2; {wait}; printf more"));
    let theirs = begun(&server, other, wait);
    let mut everything = Stream::of(&server, &operator, "");
    let mut own = Stream::of(&server, &agent, "?types=run.progress");
    let mut filtered = Stream::of(&server, &agent, "?types=run.finished");

    // A person sees both, an agent its own alone, however long it listens.
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(everything.progress()["plan"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen, [mine.clone(), theirs].into());
    let first = own.progress();
    assert_eq!((&first["type"], &first["plan"]), (&json!("run.progress"), &json!(mine)));
    let wrote = |body: &Value| (body["stdout_bytes"].clone(), body["stderr_bytes"].clone());
    let second = loop {
        let told = own.progress();
        assert_eq!(told["plan"], json!(mine), "another agent's run is told");
        // The first of them may have come before it wrote.
        if wrote(&told["body"]) == (json!(5), json!(3)) && told["body"]["elapsed_ms"] != first["body"]["elapsed_ms"] {
            break told;
        }
    };
    let elapsed = |told: &Value| told["body"]["elapsed_ms"].as_u64().unwrap();
    assert!(elapsed(&second) >= elapsed(&first) + 900, "more than one a second: {first} {second}");
    let (_, plan) = server.by(&operator, "GET", &format!("/commands/{mine}"), &Value::Null);
    assert_eq!(second["body"]["run"], plan["run"]["run_id"]);
    let processes = &second["body"]["processes"];
    assert!(processes.is_null() || processes.as_u64().is_some_and(|count| (1..=3).contains(&count)), "{second}");

    fs::write(server.root.path().join("workspace/go"), "").unwrap();
    let finished = filtered.event();
    assert_eq!((finished.kind.as_str(), &finished.data["plan"]), ("run.finished", &json!(mine)));
    until("the end of both", || server.by(&operator, "GET", "/commands?state=running", &Value::Null).1 == json!([]));
    let (_, plan) = server.by(&operator, "GET", &format!("/commands/{mine}"), &Value::Null);
    assert_eq!(plan["run"]["usage"]["processes_peak"].is_null(), processes.is_null(), "counted as the record counts");

    // What was told is not in the log, and a tail that skips it shows every entry.
    let mut again = Stream::of(&server, &operator, "?since=0");
    server.plan("make a last entry");
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "plan.queued") || kinds.len() < 5 {
        let event = again.event();
        assert!(event.id.is_some(), "{event:?}");
        kinds.push(event.kind);
    }
    assert!(!kinds.iter().any(|kind| kind == "run.progress"), "{kinds:?}");
}

#[test]
fn a_tail_of_the_log_passes_over_how_far_a_run_is() {
    let server = Served::new();
    let operator = server.operator();
    let id = begun(&server, &server.agent(), "until [ -e go ]; do sleep 0.05; done");
    let mut listening = Stream::of(&server, &operator, "?types=run.progress");
    let since = Stream::of(&server, &operator, "?since=0&types=run.started").event().id.unwrap();
    std::thread::scope(|scope| {
        let tail = scope.spawn(|| {
            server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["audit", "tail", "--since", &since, "--count", "1"])
        });
        // Twice: at least once while the tail listens, too.
        for _ in 0..2 {
            assert_eq!(listening.progress()["plan"], json!(id));
        }
        fs::write(server.root.path().join("workspace/go"), "").unwrap();
        let tail = tail.join().unwrap();
        let told = String::from_utf8_lossy(&tail.stdout).into_owned();
        assert!(tail.status.success(), "{}", String::from_utf8_lossy(&tail.stderr));
        assert!(told.contains("run.finished") && told.lines().count() == 1, "{told}");
    });
}

/// Writes through a mapping, which no call tells of, and then sets the times back.
const MAPPED: &str = "python3 -c 'import mmap, os; f = open(\"mapped\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); m[0:1] = b\"X\"; \
                      m.close(); os.utime(\"mapped\", (1, 1))'";

#[test]
fn what_a_run_wrote_is_in_the_answer_and_shown_and_gone_once_it_is_erased() {
    let server = Served::new();
    let run = server.approved("printf before > mapped; printf before > kept; mkdir full; : > full/gone");
    assert_eq!(run["written"]["count"], 4, "{run}");
    let unseen = run["written"]["unseen"].as_array().unwrap().clone();
    // What was written in the last tick of the clock that marks files would be the next run's as well.
    let marked = |file: &str| fs::metadata(server.root.path().join(file)).unwrap().modified().unwrap();
    until("a tick", || {
        fs::write(server.root.path().join("tick"), "").unwrap();
        marked("tick") > marked("workspace/full/gone")
    });
    let command =
        format!("{MAPPED}; rm full/gone; cat kept; : > $'z\\xff\\n'; : > ghp_0123456789abcdefghijABCDEFGHIJ012345");
    let run = server.approved(&command);
    let path = |path: &str, change: &str| json!({ "path": path, "change": change });
    let mut odd = path("z\u{fffd}\n", "created");
    odd["path_b64"] = "ev8K".into();
    let mut expected = vec![path("full", "folder"), path("[redacted:github-token]", "created"), odd];
    // Where a write through a mapping leaves no trace, that is said.
    if unseen.is_empty() {
        expected.insert(2, path("mapped", "changed"));
    }
    let mut found = run["written"]["paths"].as_array().unwrap().clone();
    let name = |told: &serde_json::Value| told["path"].as_str().unwrap().to_owned();
    found.sort_by_key(name);
    expected.sort_by_key(name);
    assert_eq!(found, expected, "{run}");
    assert_eq!(run["redactions"], 1, "{run}");

    let (operator, id) = (server.operator(), run["pending_id"].as_str().unwrap());
    let shown = server.cli(("AGENT_HUB_OPERATOR_TOKEN", &operator), &["show", id]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("  | folder   full\n") && shown.contains("  | created  z⟦U+FFFD⟧⟦U+000A⟧ (not UTF-8)\n"),
        "{shown}"
    );
    let (_, listed) = server.by(&operator, "GET", "/runs", &Value::Null);
    assert!(listed[0].get("written").is_none(), "a list would be long: {listed}");
    let (_, log) = server.by(&operator, "GET", "/audit", &Value::Null);
    assert!(!log.to_string().contains("mapped"), "the log names files");
    assert_eq!(server.by(&operator, "POST", "/erase", &json!({ "plan": id })).0, 200);
    let (_, plan) = server.by(&operator, "GET", &format!("/commands/{id}"), &Value::Null);
    assert!(plan["run"].is_object() && plan["run"].get("written").is_none(), "{plan}");
}
