//! Tokens and workspaces: who may ask, and where commands may run.

use provara_domain::{Name, Principal, Role, Roles, TokenId};
use provara_store::{NewToken, StoreError, TokenError, TokenRecord};

use crate::gateway::Gateway;
use crate::propose::lies_in;

/// A principal to be made. The secret itself never comes here.
#[derive(Debug, Clone)]
pub struct NewPrincipal {
    /// Its name.
    pub name: Name,
    /// What it may do.
    pub roles: Roles,
    /// SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
}

/// Why a token was not made, listed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum PrincipalError {
    /// The caller is no admin.
    #[error("only an admin may manage tokens")]
    NotAnAdmin,
    /// One token may not propose and decide.
    #[error("a token is an agent's or a person's, never both: nobody approves their own commands")]
    AgentAndPerson,
    /// A token without a role is good for nothing.
    #[error("a token needs at least one role")]
    NoRole,
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] TokenError),
}

/// Why a workspace was not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// The caller is no admin.
    #[error("only an admin may manage workspaces")]
    NotAnAdmin,
    /// The path is not one that commands may be let into.
    #[error("`{path}` cannot be a workspace: {why}")]
    Refused {
        /// The path.
        path: String,
        /// Why, in words.
        why: &'static str,
    },
    /// The store failed.
    #[error("could not record the workspace")]
    Store(#[from] StoreError),
}

impl Gateway {
    /// Returns who shows a token whose SHA-256 is `secret_sha256`, if it is valid.
    pub fn authenticate(&self, secret_sha256: &[u8; 32]) -> Option<Principal> {
        self.inner.store.principal(secret_sha256)
    }

    /// Makes a token. The secret was made, and is shown, by the caller; only its hash is kept.
    ///
    /// # Errors
    /// When the caller is no admin, the roles do not go together, or the store fails. Several tokens may carry one name: they
    /// are the same principal's, who sees the same plans by each of them.
    pub async fn create_token(&self, who: &Principal, new: NewPrincipal) -> Result<TokenRecord, PrincipalError> {
        admin(who)?;
        if new.roles.iter().next().is_none() {
            return Err(PrincipalError::NoRole);
        }
        if new.roles.has(Role::Agent) && new.roles.iter().count() > 1 {
            return Err(PrincipalError::AgentAndPerson);
        }
        let inner = &self.inner;
        let token = NewToken {
            id: TokenId::new(inner.platform.now(), inner.id_entropy()),
            name: new.name,
            roles: new.roles,
            project: who.project.clone(),
            secret_sha256: new.secret_sha256,
        };
        Ok(inner.store.create_token(token, inner.cause(who)).await?)
    }

    /// Makes a token of the same name and roles in the place of `old`, which ends in the same step: at no time are there
    /// two or none. The secret was made, and is shown, by the caller.
    ///
    /// # Errors
    /// When the caller is no admin, `old` is not there or was revoked, or the store fails.
    pub async fn replace_token(
        &self,
        who: &Principal,
        old: &TokenId,
        secret_sha256: [u8; 32],
    ) -> Result<TokenRecord, PrincipalError> {
        admin(who)?;
        let inner = &self.inner;
        let id = TokenId::new(inner.platform.now(), inner.id_entropy());
        Ok(inner.store.replace_token(&who.project, old, id, secret_sha256, inner.cause(who)).await?)
    }

    /// Returns every token's record. No secret is among them; none is kept.
    ///
    /// # Errors
    /// When the caller is no admin or the store fails.
    pub async fn tokens(&self, who: &Principal) -> Result<Vec<TokenRecord>, PrincipalError> {
        admin(who)?;
        Ok(self.inner.store.tokens(&who.project).await.map_err(TokenError::from)?)
    }

    /// Revokes a token: from now on it is not accepted.
    ///
    /// # Errors
    /// When the caller is no admin, there is no such token, or the store fails.
    pub async fn revoke_token(&self, who: &Principal, id: &TokenId) -> Result<(), PrincipalError> {
        admin(who)?;
        self.inner.store.revoke_token(&who.project, id, self.inner.cause(who)).await?;
        Ok(())
    }

    /// Returns every workspace, the configured one first.
    pub fn workspaces(&self) -> Vec<String> {
        self.inner.workspaces()
    }

    /// Lets commands run in `path`, which has to be an existing folder, named as the kernel names it.
    ///
    /// # Errors
    /// When the caller is no admin, the path is no such folder or would expose Provara's own files, or the store fails.
    pub async fn add_workspace(&self, who: &Principal, path: String) -> Result<(), WorkspaceError> {
        if !who.roles.has(Role::Admin) {
            return Err(WorkspaceError::NotAnAdmin);
        }
        if let Err(why) = self.fit_for_commands(&path) {
            return Err(WorkspaceError::Refused { path, why });
        }
        Ok(self.inner.store.add_workspace(&who.project, path, self.inner.cause(who)).await?)
    }

    fn fit_for_commands(&self, path: &str) -> Result<(), &'static str> {
        let real = std::fs::canonicalize(path).map_err(|_| "there is no such folder")?;
        if real.to_str() != Some(path) {
            return Err("it leads through a symbolic link or is not an absolute path; name the folder itself");
        }
        if !real.is_dir() {
            return Err("it is no folder");
        }
        if self.inner.config.own_paths.iter().any(|own| lies_in(own, path) || lies_in(path, own)) {
            return Err("it holds, or lies in, Provara's own files, which no command may change");
        }
        Ok(())
    }

    /// Lets commands no longer run in `path`.
    ///
    /// # Errors
    /// When the caller is no admin, it is the configured workspace, or the store fails.
    pub async fn remove_workspace(&self, who: &Principal, path: String) -> Result<(), WorkspaceError> {
        if !who.roles.has(Role::Admin) {
            return Err(WorkspaceError::NotAnAdmin);
        }
        if path == self.inner.config.workspace {
            return Err(WorkspaceError::Refused {
                path,
                why: "it is the configured one; change AGENT_HUB_WORKSPACE_DIR",
            });
        }
        let was_one = self.inner.store.remove_workspace(&who.project, path.clone(), self.inner.cause(who)).await?;
        if was_one { Ok(()) } else { Err(WorkspaceError::Refused { path, why: "it is none" }) }
    }
}

fn admin(who: &Principal) -> Result<(), PrincipalError> {
    if who.roles.has(Role::Admin) { Ok(()) } else { Err(PrincipalError::NotAnAdmin) }
}
