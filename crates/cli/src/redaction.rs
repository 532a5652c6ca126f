//! What is secret here: by rules, and by being one of our own tokens or a variable that is called so.

use std::path::Path;
use std::sync::Arc;

use provara_redact::{Literal, Redactor, Rules};

use crate::config::{self, Secret, Settings};
use crate::failure::Failure;
use crate::serve::with_causes;

/// Returns what finds the secrets that the built-in rules and the operator's describe, those of the settings and those of
/// this process's environment.
pub(crate) fn redactor(settings: &Settings) -> Result<Redactor, Failure> {
    let mut rules = Rules::builtin().map_err(|errors| Failure::Other(errors.to_string()))?;
    if let Some(path) = &settings.secrets {
        rules = rules.and(own_rules(path)?);
    }
    let mut known = tokens(settings.token.as_ref(), settings.operator_token.as_ref());
    // A name or a value that is no text cannot be printed as text either.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    // Our own settings are among them: which of those are secret is known.
    let others = variables.filter(|(name, _)| !name.starts_with(config::PREFIX));
    known.extend(others.filter_map(|(name, value)| Literal::of_variable(&name, &value)));
    Redactor::new(Arc::new(rules), &known).map_err(|error| Failure::Usage(error.to_string()))
}

/// The tokens that this server knows in clear.
pub(crate) fn tokens(agent: Option<&Secret>, operator: Option<&Secret>) -> Vec<Literal> {
    let named = [("agent-token", agent), ("operator-token", operator)];
    named.into_iter().filter_map(|(name, token)| Some(Literal::new(name, token?.expose()))).collect()
}

/// Whoever could write the file could keep a secret from being found, by a rule that is read and never matches: so it is held
/// to what every file of settings is.
fn own_rules(path: &Path) -> Result<Rules, Failure> {
    let text = config::read_trusted(path).map_err(|error| Failure::Usage(with_causes(&error)))?;
    let Some(text) = text else {
        return Err(Failure::Usage(format!("`{}`, which AGENT_HUB_SECRETS names, is not there", path.display())));
    };
    Rules::parse(&text).map_err(|errors| Failure::Usage(format!("`{}`: {errors}", path.display())))
}
