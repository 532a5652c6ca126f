//! `provara serve`: everything is made here and wired together, and ends here in order.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use provara_audit::checkpoint::LogKey;
use provara_domain::{Actor, EnvName, Name, Profiles, Role, Roles, Timestamp, TokenId};
use provara_gateway::{CoolDown, Gateway, GatewayConfig, OutputRedaction, Parts, Platform};
use provara_policy::{Policy, RuleFile, Strictness};
use provara_redact::Redactor;
use provara_runner::egress::EgressLimits;
use provara_runner::{EgressConfig, HelperProgram, Mounts, Runner, RunnerConfig};
use provara_server::{Bucket, Entrance, ServerConfig};
use provara_store::{Cause, Entropy, NewToken, Store, StoreConfig};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::commands::Session;
use crate::config::{Secret, Settings};
use crate::display::visible_line;
use crate::failure::Failure;
use crate::prepare::{self, Keys, Listening};
use crate::{client, clock, mirror, profiles, redaction, retention, rules, secrets, service, tell};

/// How long running commands may take to end when the server is told to.
const GRACE: Duration = Duration::from_secs(10);
/// How many commands run at once.
const MAX_RUNS: usize = 32;
/// The version that the log and `/status` tell.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The real clock and the real randomness.
struct Host;

impl Platform for Host {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn entropy(&self) -> u128 {
        DRAWN.with_borrow_mut(|drawn| {
            if drawn.is_empty() {
                drawn.extend(draw());
            }
            drawn.pop().unwrap_or_else(|| std::process::abort())
        })
    }
}

thread_local! {
    /// Numbers that the system drew and nobody has had: a plan needs four, and each would be a call of its own.
    static DRAWN: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

fn draw() -> [u128; 32] {
    let mut bytes = [[0; 16]; 32];
    // Without randomness there are no tokens and no ids that nobody guesses: better no server than a guessable one.
    if getrandom::fill(bytes.as_flattened_mut()).is_err() {
        std::process::abort();
    }
    bytes.map(u128::from_le_bytes)
}

/// What the operator's files say.
struct Rulebook {
    policy: Policy,
    profiles: Profiles,
    redactor: Arc<Redactor>,
}

/// What a server needs of the world and does not make: had before anything is changed, so that a start that must fail
/// leaves nothing behind.
struct Given {
    binary: PathBuf,
    rulebook: Rulebook,
    tls: Option<Arc<rustls::ServerConfig>>,
    sinks: mirror::Sinks,
}

fn given(settings: &Settings, listening: Listening) -> Result<Given, Failure> {
    let refused = |refusal: prepare::Refusal| Failure::Usage(refusal.to_string());
    let binary = std::env::current_exe()?;
    prepare::check_folders(settings, &binary).map_err(refused)?;
    prepare::check_listening(settings, listening).map_err(refused)?;
    let redactor = Arc::new(redaction::redactor(settings)?);
    let trust = client::trust(settings).map_err(|error| Failure::Usage(error.to_string()))?;
    let sinks = mirror::Sinks { addresses: settings.checkpoint_sinks.clone(), trust };
    let policy = policy(settings)?;
    let profiles = profiles::loaded(settings, &binary, Mounts::Available)?;
    if let Some((rule, name)) = policy.named_profiles().find(|(_, name)| profiles.get(name).is_none()) {
        let file = profiles::FILE;
        return Err(Failure::Usage(format!("rule `{rule}` names the profile `{name}`, which is not in `{file}`")));
    }
    Ok(Given { binary, rulebook: Rulebook { policy, profiles, redactor }, tls: tls(settings)?, sinks })
}

/// Checks what a start would need, and starts nothing.
pub(crate) fn check(session: &Session, listening: Listening) -> Result<ExitCode, Failure> {
    let inherited = service::inherited()?;
    let settings = &service::settled(&session.settings, inherited.as_ref())?;
    let Given { rulebook: Rulebook { policy, profiles, .. }, .. } = given(settings, listening)?;
    let (rules, digest) = (policy.rules().count(), policy.version().digest.as_str());
    let files: Vec<String> = settings.files.iter().map(|path| path.display().to_string()).collect();
    let profiles: Vec<&str> = profiles.iter().map(|profile| profile.name().as_str()).collect();
    let answer = json!({ "ok": true, "rules": rules, "policy": digest, "files": files, "profiles": profiles });
    session.answer(&answer, |out, _| {
        for file in &files {
            writeln!(out, "settings  {}", visible_line(file))?;
        }
        writeln!(out, "policy    {rules} rules, {digest}\nprofiles  {}\nOK", profiles.join(", "))
    })
}

/// Serves until told to stop.
pub(crate) fn serve(settings: &Settings, listening: Listening) -> Result<ExitCode, Failure> {
    let inherited = service::inherited()?;
    let settings = &service::settled(settings, inherited.as_ref())?;
    let given = given(settings, listening)?;
    let telling = tell::start(settings.log_level, Arc::clone(&given.rulebook.redactor));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(run(settings, given, inherited));
    // Last, so that the last request is told of too.
    drop(runtime);
    telling.end();
    ended
}

async fn run(settings: &Settings, given: Given, inherited: Option<std::net::TcpListener>) -> Result<ExitCode, Failure> {
    let supervisor = Arc::new(service::Supervisor::from_env());
    // Before the store: an address that cannot be had must not leave an entry in the log.
    let listener = listen(settings, inherited).await?;
    let address = listener.local_addr()?;
    let told = told_to_stop()?;
    let Given { binary, rulebook, tls, sinks } = given;
    let gateway = gateway(settings, binary, rulebook).await?;
    let mirror = tokio::spawn(mirror::keep(gateway.clone(), settings.runtime.join("audit"), sinks));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{address}");
    let served = match announce(settings, &base) {
        Ok(()) => {
            supervisor.ready(&base);
            // Not before: a sign of life from a server that does not serve yet is none, and a start that fails erases nothing.
            let retention = tokio::spawn(retention::keep(gateway.clone(), settings.retention));
            let alive = tokio::spawn(service::keep_alive(Arc::clone(&supervisor), gateway.clone()));
            let router = provara_server::router(gateway.clone(), edge(settings, scheme, address.port()));
            let entrance = Entrance { listener, tls, connections: connections() };
            let served = serve_until(&gateway, &supervisor, entrance, router, told).await;
            alive.abort();
            retention.abort();
            served
        }
        Err(error) => Err(error.into()),
    };
    mirror.abort();
    let _ = fs::remove_file(settings.runtime.join("address"));
    gateway.close().await.map_err(|error| other(&error))?;
    served.map(|()| ExitCode::SUCCESS)
}

/// Serves until `told`, then ends in order: no new connections; running commands get their grace and are recorded; whoever
/// waits for one gets its answer; only then is the store closed.
async fn serve_until(
    gateway: &Gateway,
    supervisor: &service::Supervisor,
    entrance: Entrance,
    router: provara_server::Router,
    told: watch::Receiver<bool>,
) -> Result<(), Failure> {
    // Serving may also end by itself, when the listener breaks. Then the rest has to end too.
    let (broken, broke) = watch::channel(false);
    let stop = |mut told: watch::Receiver<bool>, mut broke: watch::Receiver<bool>| async move {
        tokio::select! { _ = told.wait_for(|told| *told) => {}, _ = broke.wait_for(|broke| *broke) => {} }
    };
    let ending = async {
        stop(told.clone(), broke.clone()).await;
        supervisor.stopping();
        tracing::info!("stopping: no new work; running commands get {} s", GRACE.as_secs());
        gateway.quiesce(GRACE).await;
    };
    let serving = async {
        let served = provara_server::serve(entrance, router, stop(told.clone(), broke.clone()), gateway.quiet()).await;
        broken.send_replace(true);
        served
    };
    let ((), served) = tokio::join!(ending, serving);
    served.map_err(|error| other(&error))
}

/// How many connections this process may hold: half of what it may open, since commands and the store need files too.
fn connections() -> usize {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return provara_server::MAX_CONNECTIONS };
    // The soft limit is for programs that cannot deal with high descriptors, by old custom 1024. Commands get their own.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    usize::try_from(hard / 2).unwrap_or(usize::MAX).min(provara_server::MAX_CONNECTIONS)
}

async fn listen(settings: &Settings, inherited: Option<std::net::TcpListener>) -> Result<TcpListener, Failure> {
    if let Some(listener) = inherited {
        return Ok(TcpListener::from_std(listener)?);
    }
    let (host, port) = (settings.host.as_str(), settings.port);
    TcpListener::bind((host, port)).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there; name another AGENT_HUB_PORT",
            io::ErrorKind::PermissionDenied => "ports below 1024 are root's; name another AGENT_HUB_PORT",
            _ => "AGENT_HUB_HOST has to be an address of this machine",
        };
        Failure::Other(format!("cannot listen on {host}:{port}: {error}; {advice}"))
    })
}

/// The gateway at work, over a store of this folder alone.
async fn gateway(settings: &Settings, binary: PathBuf, rulebook: Rulebook) -> Result<Gateway, Failure> {
    let Rulebook { policy, profiles, redactor } = rulebook;
    secrets::private_dir(&settings.runtime)?;
    let workspace = make_workspace(settings)?;
    let store = Store::open(StoreConfig { runtime: settings.runtime.clone(), output_keep: settings.output_keep })
        .map_err(|error| other(&error))?;
    let keys = prepare::keys(settings, operator_known(&store).await?)?;
    let known = redaction::tokens(Some(&keys.agent), keys.operator.as_ref());
    let redactor = Arc::new(redactor.and(&known).map_err(|error| other(&error))?);
    tell::redact_by(Arc::clone(&redactor));
    register(&store, settings, &keys).await?;
    let own = prepare::own_files(settings, &binary);
    drop_exposed(&store, &own).await?;
    let runner = start_runner(settings, &profiles, &binary, &workspace).await?;
    if let Some(problem) = &runner.host().problem {
        tracing::warn!(problem, cure = prepare::cure(problem), "commands cannot be confined here and will not be run");
        // Some hosts may come to run commands without mounts of their own. What needs them must not wait for that day.
        profiles::loaded(settings, &binary, Mounts::Missing)?;
    }
    Gateway::start(Parts {
        store,
        policy,
        redactor,
        runner: Some(runner),
        platform: Arc::new(Host),
        log_key: log_key(keys.log_seed)?,
        config: GatewayConfig {
            pending_cap: settings.max_pending,
            cool_down: CoolDown { denials: settings.denials_before_cool_down, window: settings.cool_down },
            plan_expiry: Duration::from_secs(7 * 86_400),
            approval_valid: Duration::from_secs(600),
            default_shell: settings.shell,
            workspace,
            own_paths: own.iter().filter_map(|(_, path)| path.to_str().map(str::to_owned)).collect(),
            single_token: settings.single_token,
            profiles,
            max_runs: MAX_RUNS,
            output: settings.redact_output,
            version: VERSION,
        },
    })
    .await
    .map_err(|error| other(&error))
}

/// A folder that was added while it was harmless, and now holds our own files because the configuration moved them there, is
/// no workspace any more.
async fn drop_exposed(store: &Store, own: &[(&'static str, PathBuf)]) -> Result<(), Failure> {
    let project = Name::default_project();
    for path in store.workspaces(&project) {
        if let Err(refusal) = prepare::check_workspace(&prepare::resolved(Path::new(&path)), own) {
            tell::warn(&format!("{refusal}; it is no workspace any more"));
            let cause = Cause { actor: Actor::System, at: Host.now(), entropy: Entropy(Host.entropy()) };
            store.remove_workspace(&project, path, cause).await.map_err(|error| other(&error))?;
        }
    }
    Ok(())
}

fn other(error: &dyn std::error::Error) -> Failure {
    Failure::Other(with_causes(error))
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The workspace's canonical path; made, and given to the user that commands run as, when it is not there.
fn make_workspace(settings: &Settings) -> Result<String, Failure> {
    if !settings.workspace.exists() {
        fs::create_dir_all(&settings.workspace)?;
        provara_runner::give_workspace(&settings.workspace, settings.run_as.as_deref())
            .map_err(|error| other(&error))?;
    }
    let path = settings.workspace.canonicalize()?;
    path.to_str().map(str::to_owned).ok_or_else(|| Failure::Usage("WORKSPACE_DIR is not UTF-8".into()))
}

async fn operator_known(store: &Store) -> Result<bool, Failure> {
    let tokens = store.tokens(&Name::default_project()).await.map_err(|error| other(&error))?;
    Ok(tokens.iter().any(|token| token.revoked_at.is_none() && token.roles.has(Role::Approver)))
}

/// Makes the configured tokens known. Each has one record, whatever its secret is today.
async fn register(store: &Store, settings: &Settings, keys: &Keys) -> Result<(), Failure> {
    let person = [Role::Approver, Role::Admin];
    let agent: &[Role] =
        if settings.single_token { &[Role::Agent, Role::Approver, Role::Admin] } else { &[Role::Agent] };
    let mut all = vec![("agent", 1, agent, Some(&keys.agent))];
    if !settings.single_token {
        all.push(("operator", 2, &person, keys.operator.as_ref()));
    }
    for (name, number, roles, secret) in all {
        let Some(secret) = secret else { continue };
        let token = configured(name, number, roles, secret)?;
        let cause = Cause { actor: Actor::System, at: Host.now(), entropy: Entropy(Host.entropy()) };
        store.upsert_configured_token(token, cause).await.map_err(|error| other(&error))?;
    }
    Ok(())
}

fn configured(name: &str, number: u64, roles: &[Role], secret: &Secret) -> Result<NewToken, Failure> {
    Ok(NewToken {
        id: TokenId::new(Timestamp::from_millis(0), number),
        name: Name::parse(name).map_err(|error| other(&error))?,
        roles: Roles::of(roles),
        project: Name::default_project(),
        secret_sha256: secrets::hash(secret),
    })
}

async fn start_runner(
    settings: &Settings,
    profiles: &Profiles,
    binary: &Path,
    workspace: &str,
) -> Result<Runner, Failure> {
    // Opened now: the program may be replaced on disk while the server runs, and the helper must be of this version.
    let opened = File::open(binary)?;
    let program = {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
    };
    let named: BTreeSet<&str> =
        profiles.iter().flat_map(|profile| &profile.grants().environment).map(EnvName::as_str).collect();
    let environment = named.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect();
    let mut protected = settings.files.clone();
    protected.extend(settings.tls_key.clone());
    protected.push(settings.root.join(".env"));
    protected.push(settings.root.join("provara.toml"));
    protected.push(settings.root.join(profiles::FILE));
    protected.push(settings.root.join("policies"));
    protected.extend(settings.secrets.clone());
    Runner::start(RunnerConfig {
        runtime: settings.runtime.clone(),
        protected,
        run_as: settings.run_as.clone(),
        helper: HelperProgram { program, arguments: vec!["__helper".into()], opened: Some(opened) },
        environment,
        workspace: workspace.to_owned(),
        allow_host_same_user: settings.allow_host_same_user,
        egress: EgressConfig {
            internal: settings.internal_hosts.clone(),
            own: own_addresses(settings),
            limits: egress_limits(),
            ..EgressConfig::default()
        },
    })
    .await
    .map_err(|error| other(&error))
}

/// What the connections of each run that calls hosts are limited to: all together have a quarter of what this process may
/// open, and each connection has two ends.
fn egress_limits() -> EgressLimits {
    let usual = EgressLimits::default();
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usual };
    let each = usize::try_from(hard / 4).unwrap_or(usize::MAX) / (2 * MAX_RUNS);
    EgressLimits { at_once: each.clamp(4, usual.at_once), ..usual }
}

/// Addresses by which this server is reached although no interface here has them: whatever the operator calls it by.
fn own_addresses(settings: &Settings) -> Vec<IpAddr> {
    let public = settings.public_url.as_deref().and_then(|url| url.parse::<ureq::http::Uri>().ok());
    let public = public.as_ref().and_then(|url| url.host());
    let names = settings.allowed_hosts.iter().map(String::as_str).chain(public).chain([settings.host.as_str()]);
    names.filter_map(|host| host.trim_matches(['[', ']']).parse().ok()).collect()
}

/// The built-in rules and those of `ROOT/policies/projects/`, in the order of their names.
fn policy(settings: &Settings) -> Result<Policy, Failure> {
    let folder = settings.root.join("policies/projects");
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let unreadable = |error| Failure::Usage(format!("`{}` cannot be read: {error}", path.display()));
                files.push((path.display().to_string(), rules::read(&path).map_err(unreadable)?));
            }
        }
        files.sort();
    }
    let files: Vec<RuleFile<'_>> = files.iter().map(|(name, text)| RuleFile { name, text }).collect();
    let strict = if settings.strict_mode { Strictness::Deny } else { Strictness::Ask };
    Policy::load(&files, strict).map_err(|errors| Failure::Usage(errors.to_string()))
}

/// The log is named after its key, so that two logs never share a name.
pub(crate) fn log_key(seed: [u8; 32]) -> Result<LogKey, Failure> {
    let [a, b, c, d, ..] =
        <[u8; 32]>::from(Sha256::new().chain_update("provara log name").chain_update(seed).finalize());
    LogKey::from_seed(&format!("provara/log/{a:02x}{b:02x}{c:02x}{d:02x}"), seed).map_err(|error| other(&error))
}

fn edge(settings: &Settings, scheme: &str, port: u16) -> ServerConfig {
    let own = |host: &str| format!("{scheme}://{host}:{port}");
    let mut origins = vec![own("127.0.0.1"), own("localhost"), own("provara.localhost"), own("[::1]")];
    origins.extend(settings.cors_origins.iter().cloned());
    let minute = Duration::from_secs(60);
    ServerConfig {
        allowed_hosts: ["127.0.0.1", "localhost", "provara.localhost", "::1"]
            .into_iter()
            .chain(settings.allowed_hosts.iter().map(|host| host.trim_matches(['[', ']'])))
            .map(str::to_owned)
            .collect(),
        origins,
        agents: Bucket { requests: settings.rate_limit_requests, window: settings.rate_limit_window },
        // Whoever lets agents ask more lets people ask as much.
        people: Bucket { requests: settings.rate_limit_requests.max(600), window: minute },
        failures: Bucket { requests: 20, window: minute },
        trusted_proxies: settings.trusted_proxies.clone(),
        public_url: settings.public_url.clone().unwrap_or_else(|| own("provara.localhost")),
        version: VERSION,
    }
}

fn tls(settings: &Settings) -> Result<Option<Arc<rustls::ServerConfig>>, Failure> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key) else { return Ok(None) };
    let unreadable = |path: &Path, error: &dyn std::error::Error| {
        Failure::Usage(format!("`{}` cannot be used for TLS: {error}", path.display()))
    };
    let certificates =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|error| unreadable(cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| other(&error))?
        .with_no_client_auth()
        .with_single_cert(certificates, secret)
        .map_err(|error| unreadable(cert, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// Tells where things are and what to do next, and no token. Last of all it names the address in a file: whoever waits for
/// that finds a server that answers.
fn announce(settings: &Settings, base: &str) -> io::Result<()> {
    tell::say(&format!("Provara {VERSION} listens on {base}"));
    if settings.single_token {
        tell::warn("one token proposes and approves (AGENT_HUB_SINGLE_TOKEN=1)");
    }
    if settings.redact_output == OutputRedaction::Off {
        tell::warn("secrets in what commands write are kept as they are (AGENT_HUB_REDACT_OUTPUT=0)");
    }
    if settings.token.is_none() {
        tell::say(&format!("  agents' token:    {}", settings.agent_token_path().display()));
    }
    if settings.operator_token.is_none() && settings.operator_token_path().exists() {
        tell::say(&format!("  operator's token: {}", settings.operator_token_path().display()));
    }
    let root = settings.root.display();
    tell::say(&format!("  next: in another terminal, export AGENT_HUB_ROOT={root}"));
    tell::say("    `provara run -- uname -a` as an agent, `provara pending` and `provara approve ID` as you");
    mirror::replace(&settings.runtime.join("address"), &format!("{base}\n"))
}

/// Turns true on the first SIGTERM or SIGINT. The second ends the process at once; the helper, whose server is gone, then
/// ends every run, and the next start calls them lost.
fn told_to_stop() -> io::Result<watch::Receiver<bool>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (told, receiver) = watch::channel(false);
    tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            if again {
                std::process::exit(1);
            }
            told.send_replace(true);
        }
    });
    Ok(receiver)
}
