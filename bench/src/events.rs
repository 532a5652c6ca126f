//! From a plan to those who watch: many readers of the events, one plan at a time.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::client::{Ask, Client, Target, Who, propose};
use crate::commands::PLAN;
use crate::failure::Failure;
use crate::load::Samples;
use crate::process;
use crate::row::Row;
use crate::say;
use crate::stand::Stand;

/// An event that has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// A frame is some hundred bytes.
const MAX_FRAME: usize = 64 * 1024;

/// What a reader tells.
enum Seen {
    /// It is connected and misses nothing from here on.
    Ready,
    /// It saw an event of this plan.
    Event { plan: String, at: Instant },
    /// Its stream ended.
    Ended,
    /// It could not begin.
    Failed(Failure),
}

/// Readers in a thread of their own: what they take in must not hold up whoever plans.
struct Crowd {
    _until_dropped: oneshot::Sender<()>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Crowd {
    fn gather(target: &Target, readers: u32) -> Result<Self, Failure> {
        let (tell, seen) = mpsc::unbounded_channel();
        let (until_dropped, dropped) = oneshot::channel::<()>();
        let target = target.clone();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::io("the runtime"))?;
        let work = async move {
            let mut reading = JoinSet::new();
            for _ in 0..readers {
                match begin(&target).await {
                    Ok((client, stream)) => drop(reading.spawn(read(client, stream, tell.clone()))),
                    Err(failure) => drop(tell.send(Seen::Failed(failure))),
                }
            }
            let _ = dropped.await;
        };
        std::thread::Builder::new()
            .name("readers".to_owned())
            .spawn(move || runtime.block_on(work))
            .map_err(Failure::io("a thread"))?;
        Ok(Self { _until_dropped: until_dropped, seen })
    }

    /// Waits until everybody has got the beginning of a stream.
    async fn ready(&mut self, readers: u32) -> Result<(), Failure> {
        let mut ready = 0;
        while ready < readers {
            match tokio::time::timeout(PATIENCE, self.seen.recv()).await {
                Ok(Some(Seen::Ready)) => ready += 1,
                Ok(Some(Seen::Event { .. })) => {}
                Ok(Some(Seen::Failed(failure))) => return Err(failure),
                Ok(Some(Seen::Ended) | None) | Err(_) => {
                    let why = format!("only {ready} of {readers} readers got a beginning");
                    return Err(Failure::Unexpected { route: "/events", why });
                }
            }
        }
        Ok(())
    }
}

async fn begin(target: &Target) -> Result<(Client, Incoming), Failure> {
    let mut client = Client::connect(target).await?;
    let stream = client.open(&Ask::get(Who::Approver, "/events?types=plan.queued")).await?;
    Ok((client, stream))
}

impl Stand<'_> {
    /// Shows plans to crowds of readers. The first crowd is nobody: what a plan takes when none has to be told.
    pub(crate) async fn events(&self) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for readers in std::iter::once(&0).chain(self.effort.readers) {
            say::progress(&format!("events, {readers} readers"));
            rows.push(self.crowd(*readers).await?);
        }
        Ok(rows)
    }

    async fn crowd(&self, readers: u32) -> Result<Row, Failure> {
        let row = self.begin("events").await?.with("readers", readers);
        let mut client = Client::connect(&self.target).await?;
        let resident = || self.target.process.and_then(process::resident);
        let before = resident();
        let mut crowd = Crowd::gather(&self.target, readers)?;
        crowd.ready(readers).await?;
        let grown = resident().zip(before).map(|(after, before)| f64::from(after.saturating_sub(before)));
        let (mut plans, mut each, mut last, mut lost) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..self.effort.shown {
            let begun = Instant::now();
            let (id, _) = propose(&mut client, PLAN).await?;
            plans.push(begun.elapsed());
            let times = arrivals(&mut crowd.seen, readers, &id, begun).await;
            lost += readers - u32::try_from(times.len()).unwrap_or(readers);
            last.extend(times.iter().max());
            each.extend(times);
        }
        let (plans, each, last) = (Samples::new(plans), Samples::new(each), Samples::new(last));
        let row = row.with("plans", self.effort.shown).number("plan_p50_us", plans.micros(50));
        if readers == 0 {
            return Ok(row);
        }
        Ok(row
            .number("p50_us", each.micros(50))
            .number("p99_us", each.micros(99))
            .number("last_p50_us", last.micros(50))
            .with("lost", lost)
            .number("kib_per_reader", grown.map(|grown| grown / f64::from(readers))))
    }
}

/// Returns when each of `readers` saw the plan, as far as they did in time.
async fn arrivals(seen: &mut mpsc::UnboundedReceiver<Seen>, readers: u32, id: &str, begun: Instant) -> Vec<Duration> {
    let (mut times, mut gone) = (Vec::new(), 0);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while u32::try_from(times.len()).is_ok_and(|count| count + gone < readers) {
        match tokio::time::timeout_at(deadline, seen.recv()).await {
            Ok(Some(Seen::Event { plan, at })) if plan == id => times.push(at.duration_since(begun)),
            Ok(Some(Seen::Event { .. } | Seen::Ready)) => {}
            Ok(Some(Seen::Ended | Seen::Failed(_))) => gone += 1,
            Ok(None) | Err(_) => break,
        }
    }
    times
}

/// Reads until nobody listens any more. It holds the connection, which would otherwise end.
async fn read(_client: Client, mut stream: Incoming, tell: mpsc::UnboundedSender<Seen>) {
    let mut waiting = Vec::new();
    while let Some(Ok(frame)) = stream.frame().await {
        let at = Instant::now();
        let Ok(data) = frame.into_data() else { continue };
        waiting.extend_from_slice(&data);
        for seen in whole_frames(&mut waiting, at) {
            if tell.send(seen).is_err() {
                return;
            }
        }
        if waiting.len() > MAX_FRAME {
            break;
        }
    }
    let _ = tell.send(Seen::Ended);
}

/// Takes what is complete out of `waiting`.
fn whole_frames(waiting: &mut Vec<u8>, at: Instant) -> Vec<Seen> {
    let Some(end) = waiting.windows(2).rposition(|pair| pair == b"\n\n") else { return Vec::new() };
    let rest = waiting.split_off(end + 2);
    let text = String::from_utf8_lossy(waiting).into_owned();
    *waiting = rest;
    text.split("\n\n").filter_map(|frame| told(frame, at)).collect()
}

fn told(frame: &str, at: Instant) -> Option<Seen> {
    if frame.starts_with(": caught up") {
        return Some(Seen::Ready);
    }
    let plan = frame.split_once(r#""plan":""#)?.1.split_once('"')?.0.to_owned();
    Some(Seen::Event { plan, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole_however_they_are_cut() {
        let stream = b": caught up\nid: 4\n\nid: 5\nevent: plan.queued\ndata: {\"plan\":\"p1\"}\n\n: still here\n\nid: 6\ndata: {\"plan\":\"p2\"}\n\nid: 7";
        for size in 1..=stream.len() {
            let (mut waiting, mut words) = (Vec::new(), Vec::new());
            for piece in stream.chunks(size) {
                waiting.extend_from_slice(piece);
                words.extend(whole_frames(&mut waiting, Instant::now()).into_iter().map(|seen| match seen {
                    Seen::Ready => "ready".to_owned(),
                    Seen::Event { plan, .. } => plan,
                    Seen::Ended | Seen::Failed(_) => "ended".to_owned(),
                }));
            }
            assert_eq!(words, ["ready", "p1", "p2"], "cut into pieces of {size}");
            assert_eq!(waiting, b"id: 7");
        }
    }
}
