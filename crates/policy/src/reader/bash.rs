//! The simple commands of bash and POSIX sh, in the order of the text, before anything in them is filled in.

use provara_domain::Shell;

use super::{Certainty, Command, Reading, Redirection, Word};
use crate::shell::{Change, Group, Node, Part, Simple, Text, parse};

pub(super) fn read_into(text: &str, shell: Shell, reading: &mut Reading) {
    let script = parse(text, shell);
    reading.steps += script.steps;
    reading.too_deep |= script.too_deep;
    reading.opaque.extend(script.opaque);
    nodes(&script.nodes, reading);
}

fn nodes(nodes: &[Node], reading: &mut Reading) {
    for found in nodes {
        node(found, reading);
    }
}

fn node(node: &Node, reading: &mut Reading) {
    match node {
        Node::Simple(simple) => command(simple, reading),
        Node::Pipe(stages) => nodes(stages, reading),
        Node::Perhaps(inner) => self::node(inner, reading),
        Node::Group(Group { body, words, redirections, span, .. }) => {
            words.iter().for_each(|word| parts(&word.parts, reading));
            if !redirections.is_empty() {
                let redirections = redirections.iter().map(redirection).collect();
                reading.commands.push(Command { redirections, span: *span, ..Command::default() });
            }
            nodes(body, reading);
        }
        Node::Function { body, .. } => nodes(body, reading),
    }
}

fn command(simple: &Simple, reading: &mut Reading) {
    let mut words = simple.words.iter().map(word);
    let program = words.next();
    reading.commands.push(Command {
        program: program.map(|word| word.text).unwrap_or_default(),
        args: words.collect(),
        redirections: simple.redirections.iter().map(redirection).collect(),
        assignments: simple
            .assignments
            .iter()
            .map(|it| format!("{}={}", it.name, it.values.iter().map(Text::written).collect::<Vec<_>>().join(" ")))
            .collect(),
        span: simple.span,
        pipeline: 0,
    });
    let values = simple.assignments.iter().flat_map(|assignment| &assignment.values);
    for text in simple.words.iter().chain(values).chain(simple.redirections.iter().map(|to| &to.target)) {
        parts(&text.parts, reading);
    }
    for body in simple.redirections.iter().filter_map(|to| to.body.as_ref()?.get()) {
        parts(&body.parts, reading);
    }
}

fn redirection(to: &crate::shell::Redirect) -> Redirection {
    let certainty = if to.target.literal().is_some() { Certainty::Sure } else { Certainty::Unknown };
    Redirection { operator: to.operator.clone(), target: to.target.written(), certainty }
}

fn word(text: &Text) -> Word {
    let certainty = if text.literal().is_some() { Certainty::Sure } else { Certainty::Unknown };
    let glob = text
        .parts
        .iter()
        .any(|part| matches!(part, Part::Plain { text, quoted: false } if text.contains(['*', '?', '['])));
    Word { text: text.written(), glob, certainty, span: text.span }
}

/// The commands within words.
fn parts(found: &[Part], reading: &mut Reading) {
    for part in found {
        match part {
            Part::Plain { .. } => {}
            Part::Output { body, .. } | Part::Process { body, .. } => nodes(body, reading),
            Part::Number { inside, .. } => parts(inside, reading),
            Part::Braces(choices) => choices.iter().for_each(|choice| parts(choice, reading)),
            Part::Variable { change, .. } => match change {
                Change::Default { word, .. } => parts(word, reading),
                Change::Instead(word) | Change::Slice(word) | Change::Other(word) => parts(word, reading),
                Change::CutFront { pattern, .. } | Change::CutBack { pattern, .. } => parts(pattern, reading),
                Change::Replace { pattern, by, .. } => {
                    parts(pattern, reading);
                    parts(by, reading);
                }
                Change::Nothing | Change::Length | Change::Indirect | Change::Upper { .. } | Change::Lower { .. } => {}
            },
        }
    }
}
