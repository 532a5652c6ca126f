//! Texts on their way to a terminal.
#![no_main]

#[path = "../bodies/display.rs"]
mod body;
#[path = "../../crates/cli/src/display.rs"]
mod display;

libfuzzer_sys::fuzz_target!(|input: (usize, &[u8])| {
    let stream = |pieces: &[&[u8]]| {
        let mut stream = display::VisibleStream::default();
        let shown: String = pieces.iter().map(|piece| stream.push(piece)).collect();
        shown + &stream.finish()
    };
    body::text(input.1, input.0, display::visible, display::visible_line, stream);
});
