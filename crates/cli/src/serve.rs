//! `provara serve`: everything is made here and wired together, and ends here in order.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use provara_audit::checkpoint::LogKey;
use provara_domain::{Actor, Name, Role, Roles, Timestamp, TokenId};
use provara_gateway::{Gateway, GatewayConfig, Parts, Platform};
use provara_policy::{Policy, RuleFile, Strictness};
use provara_runner::{HelperProgram, Runner, RunnerConfig};
use provara_server::{Bucket, ServerConfig};
use provara_store::{Cause, Entropy, NewToken, Store, StoreConfig};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Secret, Settings};
use crate::failure::Failure;
use crate::prepare::{self, Keys, Listening};
use crate::{mirror, retention, secrets, service};

/// How long running commands may take to end when the server is told to.
const GRACE: Duration = Duration::from_secs(10);
/// How many commands run at once.
const MAX_RUNS: usize = 32;
/// What a command inherits of the server's environment.
const INHERITED: [&str; 3] = ["LANG", "LC_ALL", "TZ"];
/// The version that the log and `/status` tell.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The real clock and the real randomness. Nothing else in Provara reads either.
struct Host;

impl Platform for Host {
    fn now(&self) -> Timestamp {
        now()
    }

    fn entropy(&self) -> u128 {
        let mut bytes = [0; 16];
        // Without randomness there are no tokens and no ids that nobody guesses: better no server than a guessable one.
        if getrandom::fill(&mut bytes).is_err() {
            std::process::abort();
        }
        u128::from_le_bytes(bytes)
    }
}

/// Serves until told to stop.
pub(crate) fn serve(settings: &Settings, listening: Listening) -> Result<ExitCode, Failure> {
    let refused = |refusal: prepare::Refusal| Failure::Usage(refusal.to_string());
    let binary = std::env::current_exe()?;
    let inherited = service::inherited()?;
    let settings = &service::settled(settings, inherited.as_ref())?;
    prepare::check_folders(settings, &binary).map_err(refused)?;
    prepare::check_listening(settings, listening).map_err(refused)?;
    crate::tell::start(settings.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(settings, &binary, inherited))
}

async fn run(
    settings: &Settings,
    binary: &Path,
    inherited: Option<std::net::TcpListener>,
) -> Result<ExitCode, Failure> {
    let supervisor = Arc::new(service::Supervisor::from_env());
    secrets::private_dir(&settings.runtime)?;
    let workspace = make_workspace(settings)?;
    let store = Store::open(StoreConfig { runtime: settings.runtime.clone(), output_keep: settings.output_keep })
        .map_err(|error| other(&error))?;
    let keys = prepare::keys(settings, operator_known(&store).await?)?;
    register(&store, settings, &keys).await?;
    let runner = start_runner(settings, binary, &workspace).await?;
    if let Some(problem) = &runner.host().problem {
        tracing::warn!(problem, "this host does not let commands be confined; they will not be run");
    }
    let gateway = Gateway::start(Parts {
        store,
        policy: policy(settings)?,
        runner: Some(runner),
        platform: Arc::new(Host),
        log_key: log_key(keys.log_seed)?,
        config: GatewayConfig {
            pending_cap: settings.max_pending,
            plan_expiry: Duration::from_secs(7 * 86_400),
            approval_valid: Duration::from_secs(600),
            default_shell: settings.shell,
            workspace,
            own_paths: own_paths(settings, binary),
            single_token: settings.single_token,
            max_runs: MAX_RUNS,
            version: VERSION,
        },
    })
    .await
    .map_err(|error| other(&error))?;
    let mirror =
        tokio::spawn(mirror::keep(gateway.clone(), settings.runtime.join("audit"), settings.checkpoint_sinks.clone()));
    let listener = match inherited {
        Some(listener) => TcpListener::from_std(listener),
        None => TcpListener::bind((settings.host.as_str(), settings.port)).await,
    };
    let listener = listener.map_err(|error| {
        Failure::Other(format!("cannot listen on {}:{}: {error}; name another PORT", settings.host, settings.port))
    })?;
    let tls = tls(settings)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", listener.local_addr()?);
    // The last step of the start: whoever waits for this file finds a server that answers.
    fs::write(settings.runtime.join("address"), format!("{base}\n"))?;
    welcome(settings, &base)?;
    supervisor.ready(&base);
    let retention = tokio::spawn(retention::keep(gateway.clone(), settings.retention));
    let alive = tokio::spawn(service::keep_alive(Arc::clone(&supervisor), gateway.clone()));
    let router = provara_server::router(gateway.clone(), edge(settings, listener.local_addr()?.port()));
    // Requests are answered until the gateway has ended: whoever waits for a run that is given its grace gets its result.
    let served = provara_server::serve(listener, router, tls, gateway.closed());
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ending = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        supervisor.stopping();
        tracing::info!("stopping: no new work; running commands get {} s", GRACE.as_secs());
        gateway.stop(GRACE).await.map_err(|error| other(&error))
    };
    let (ended, served) = tokio::join!(ending, served);
    alive.abort();
    retention.abort();
    mirror.abort();
    let _ = fs::remove_file(settings.runtime.join("address"));
    ended?;
    served.map_err(|error| other(&error))?;
    Ok(ExitCode::SUCCESS)
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

/// What no workspace may hold or lie in, as the kernel names it. ROOT itself is not among them: a workspace may lie in it.
fn own_paths(settings: &Settings, binary: &Path) -> Vec<String> {
    let mut own = vec![settings.runtime.clone(), settings.root.join("policies"), binary.to_owned()];
    own.extend(settings.files.iter().cloned());
    own.extend([settings.root.join(".env"), settings.root.join("provara.toml")]);
    // What is not there yet is named by the folder that would hold it.
    let root = settings.root.canonicalize().unwrap_or_else(|_| settings.root.clone());
    let real = |path: PathBuf| path.canonicalize().unwrap_or_else(|_| root.join(path.file_name().unwrap_or_default()));
    own.into_iter().filter_map(|path| real(path).to_str().map(str::to_owned)).collect()
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

async fn start_runner(settings: &Settings, binary: &Path, workspace: &str) -> Result<Runner, Failure> {
    // Opened now: the program may be replaced on disk while the server runs, and the helper must be of this version.
    let opened = File::open(binary)?;
    let program = {
        use std::os::fd::AsRawFd as _;
        PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
    };
    let environment =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    let mut protected = settings.files.clone();
    protected.extend(settings.tls_key.clone());
    protected.push(settings.root.join(".env"));
    protected.push(settings.root.join("provara.toml"));
    protected.push(settings.root.join("policies"));
    Runner::start(RunnerConfig {
        runtime: settings.runtime.clone(),
        protected,
        run_as: settings.run_as.clone(),
        helper: HelperProgram { program, arguments: vec!["__helper".into()], opened: Some(opened) },
        environment,
        workspace: workspace.to_owned(),
        allow_host_same_user: settings.allow_host_same_user,
    })
    .await
    .map_err(|error| other(&error))
}

/// The built-in rules and those of `ROOT/policies/projects/`, in the order of their names.
fn policy(settings: &Settings) -> Result<Policy, Failure> {
    let folder = settings.root.join("policies/projects");
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                files.push((path.display().to_string(), fs::read_to_string(&path)?));
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

fn edge(settings: &Settings, port: u16) -> ServerConfig {
    let own = |host: &str| format!("http://{host}:{port}");
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

/// Where things are and what to do next. No token is told here.
fn welcome(settings: &Settings, base: &str) -> io::Result<()> {
    let mut out = io::stderr();
    writeln!(out, "Provara {VERSION} listens on {base}")?;
    if settings.single_token {
        writeln!(out, "warning: one token proposes and approves (AGENT_HUB_SINGLE_TOKEN=1)")?;
    }
    if settings.token.is_none() {
        writeln!(out, "  agents' token:   {}", settings.agent_token_path().display())?;
    }
    if settings.operator_token_path().exists() {
        writeln!(out, "  operator's token: {}", settings.operator_token_path().display())?;
    }
    writeln!(out, "  next: `provara run -- uname -a` as an agent, `provara pending` and `provara approve ID` as you")
}
