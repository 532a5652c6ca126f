//! What tests share: a gateway over a real store and the built-in policy, with a clock that moves only when told.
//!
//! Only ever a dev-dependency, so it may fail loudly.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use provara_audit::checkpoint::LogKey;
use provara_domain::{CommandText, Name, Principal, Profiles, Role, Roles, Shell, Timeout, Timestamp, TokenId};
use provara_gateway::{CoolDown, Gateway, GatewayConfig, OutputRedaction, Parts, Platform, Proposal};
use provara_policy::{Policy, Strictness};
use provara_redact::{Redactor, Rules};
use provara_store::{Store, StoreConfig};

/// When every world begins, in milliseconds since 1970.
pub const START: i64 = 1_795_479_747_123;

/// A clock that moves only when told, and numbers that never repeat.
#[derive(Debug)]
pub struct Fixed {
    now: AtomicI64,
    drawn: AtomicU64,
}

impl Fixed {
    /// Lets `seconds` pass.
    pub fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Platform for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn entropy(&self) -> u128 {
        u128::from(self.drawn.fetch_add(1, Ordering::SeqCst)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A gateway that runs nothing, its clock, and the folder in which its store lies.
pub struct World {
    /// The gateway.
    pub gateway: Gateway,
    /// Its clock.
    pub platform: Arc<Fixed>,
    /// Its runtime folder.
    pub runtime: tempfile::TempDir,
}

/// Returns a world in which an agent may have `pending_cap` plans pending.
///
/// # Panics
/// When it cannot be made.
pub async fn world(pending_cap: u32) -> World {
    let runtime = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig { runtime: runtime.path().to_owned(), output_keep: 1 << 20 }).unwrap();
    let platform = Arc::new(Fixed { now: AtomicI64::new(START), drawn: AtomicU64::new(1) });
    let shared: Arc<dyn Platform> = platform.clone();
    let gateway = Gateway::start(Parts {
        store,
        policy: Policy::builtin(Strictness::Ask).unwrap(),
        redactor: Arc::new(Redactor::new(Arc::new(Rules::builtin().unwrap()), &[]).unwrap()),
        runner: None,
        platform: shared,
        log_key: LogKey::from_seed("example.org/log", [7; 32]).unwrap(),
        config: GatewayConfig {
            pending_cap,
            cool_down: CoolDown { denials: 3, window: Duration::from_secs(3600) },
            plan_expiry: Duration::from_secs(600),
            approval_valid: Duration::from_secs(60),
            default_shell: Shell::Bash,
            workspace: "/srv/work".to_owned(),
            own_paths: vec![runtime.path().canonicalize().unwrap().to_str().unwrap().to_owned()],
            single_token: false,
            profiles: Profiles::builtin(),
            max_runs: 4,
            output: OutputRedaction::On,
            version: "test",
        },
    })
    .await
    .unwrap();
    World { gateway, platform, runtime }
}

/// Returns a principal called `name`.
///
/// # Panics
/// When that is no name.
pub fn somebody(name: &str, roles: &[Role]) -> Principal {
    Principal {
        project: Name::default_project(),
        name: Name::parse(name).unwrap(),
        roles: Roles::of(roles),
        token: TokenId::new(Timestamp::from_millis(START), 1),
    }
}

/// Returns an agent.
pub fn agent() -> Principal {
    somebody("robot", &[Role::Agent])
}

/// Returns somebody who decides and manages.
pub fn approver() -> Principal {
    somebody("operator", &[Role::Approver, Role::Admin])
}

/// Returns a proposal of `command` with every default.
///
/// # Panics
/// When that is no command.
pub fn proposal(command: &str) -> Proposal {
    Proposal {
        command: CommandText::parse(command.to_owned()).unwrap(),
        shell: None,
        cwd: None,
        env: BTreeMap::new(),
        stdin: None,
        timeout: Timeout::DEFAULT,
        note: None,
        target: None,
        profile: None,
        expires: None,
        dedupe: false,
        idempotency: None,
    }
}
