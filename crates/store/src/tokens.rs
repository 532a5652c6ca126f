//! Tokens and workspaces. Both are few and asked for with every request, so that memory holds them too.

use provara_domain::{EventBody, Name, Principal, TokenId};
use rusqlite::{OptionalExtension as _, params};

use crate::memory::Effect;
use crate::sqlite::codec;
use crate::sqlite::writer::{About, Tx, derived};
use crate::store::Store;
use crate::types::{Cause, NewToken, StoreError, TokenError, TokenRecord};

impl Store {
    /// Stores a token.
    ///
    /// # Errors
    /// When its identifier or secret is there already, or the store fails.
    pub async fn create_token(&self, new: NewToken, cause: Cause) -> Result<TokenRecord, TokenError> {
        self.inner
            .writer
            .write(
                move |tx| {
                    if find(tx, &new.id)?.is_some() { Err(TokenError::Exists) } else { store_token(tx, new, &cause) }
                },
            )
            .await
    }

    /// Stores a token of the same name and roles in the place of a project's `old`, which ends in the same commit.
    ///
    /// # Errors
    /// When `old` is not there or was revoked, the new identifier or secret is there already, or the store fails.
    pub async fn replace_token(
        &self,
        project: &Name,
        old: &TokenId,
        new: TokenId,
        secret_sha256: [u8; 32],
        cause: Cause,
    ) -> Result<TokenRecord, TokenError> {
        let (project, old) = (project.clone(), old.clone());
        self.inner
            .writer
            .write(move |tx| {
                let found = find(tx, &old)?.filter(|(found, _)| found.project == project && found.revoked_at.is_none());
                let (found, _) = found.ok_or(TokenError::NotFound)?;
                if find(tx, &new)?.is_some() {
                    return Err(TokenError::Exists);
                }
                let TokenRecord { name, roles, project, .. } = found.clone();
                let made = store_token(tx, NewToken { id: new, name, roles, project, secret_sha256 }, &cause)?;
                revoke(tx, found, &derived(&cause, 1))?;
                Ok(made)
            })
            .await
    }

    /// Stores a token of the configuration. The same one as before changes nothing: what was revoked stays so until its
    /// secret is another.
    ///
    /// # Errors
    /// When another token has its secret, or the store fails.
    pub async fn upsert_configured_token(&self, new: NewToken, cause: Cause) -> Result<TokenRecord, TokenError> {
        self.inner
            .writer
            .write(move |tx| {
                match find(tx, &new.id)? {
                    Some((found, secret)) if secret == new.secret_sha256 && found.revoked_at.is_some() => {
                        return Ok(found);
                    }
                    Some((found, secret)) if secret == new.secret_sha256 && same(&found, &new) => return Ok(found),
                    Some(_) | None => {}
                }
                store_token(tx, new, &cause)
            })
            .await
    }

    /// Revokes a token of a project; one that is revoked stays as it is.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn revoke_token(&self, project: &Name, id: &TokenId, cause: Cause) -> Result<TokenRecord, TokenError> {
        let (project, id) = (project.clone(), id.clone());
        self.inner
            .writer
            .write(move |tx| {
                let found = find(tx, &id)?.filter(|(record, _)| record.project == project);
                let (record, _) = found.ok_or(TokenError::NotFound)?;
                if record.revoked_at.is_some() { Ok(record) } else { Ok(revoke(tx, record, &cause)?) }
            })
            .await
    }

    /// Returns a project's tokens, revoked ones too.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tokens(&self, project: &Name) -> Result<Vec<TokenRecord>, StoreError> {
        let project = project.clone();
        self.inner
            .readers
            .read(move |conn| {
                let columns = codec::TOKEN_COLUMNS;
                let mut query =
                    conn.prepare_cached(&format!("SELECT {columns} FROM tokens WHERE project = ?1 ORDER BY rowid"))?;
                let mut rows = query.query([project.as_str()])?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(codec::token(row)?.0);
                }
                Ok(found)
            })
            .await
    }

    /// Returns who holds the token whose secret has that digest, unless it was revoked.
    pub fn principal(&self, secret_sha256: &[u8; 32]) -> Option<Principal> {
        self.inner.memory.principal(secret_sha256)
    }

    /// Makes a folder a workspace; one that is one stays so.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn add_workspace(&self, project: &Name, path: String, cause: Cause) -> Result<(), StoreError> {
        let project = project.clone();
        self.inner
            .writer
            .write(move |tx| {
                let mut insert =
                    tx.conn.prepare_cached("INSERT OR IGNORE INTO workspaces (project, path) VALUES (?1, ?2)")?;
                if insert.execute(params![project.as_str(), path])? == 0 {
                    return Ok(());
                }
                tx.event(&project, About::Nothing, EventBody::WorkspaceAdded { path: path.clone() }, &cause)?;
                tx.effect(Effect::WorkspaceAdded(project, path));
                Ok(())
            })
            .await
    }

    /// Makes a folder no workspace; returns whether it was one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove_workspace(&self, project: &Name, path: String, cause: Cause) -> Result<bool, StoreError> {
        let project = project.clone();
        self.inner
            .writer
            .write(move |tx| {
                let mut delete = tx.conn.prepare_cached("DELETE FROM workspaces WHERE project = ?1 AND path = ?2")?;
                if delete.execute(params![project.as_str(), path])? == 0 {
                    return Ok(false);
                }
                tx.event(&project, About::Nothing, EventBody::WorkspaceRemoved { path: path.clone() }, &cause)?;
                tx.effect(Effect::WorkspaceRemoved(project, path));
                Ok(true)
            })
            .await
    }

    /// Returns a project's workspaces.
    pub fn workspaces(&self, project: &Name) -> Vec<String> {
        self.inner.memory.workspaces(project)
    }
}

fn revoke(tx: &mut Tx<'_>, mut record: TokenRecord, cause: &Cause) -> Result<TokenRecord, StoreError> {
    let mut update = tx.conn.prepare_cached("UPDATE tokens SET revoked_at = ?2 WHERE id = ?1")?;
    update.execute(params![record.id.as_str(), cause.at.as_millis()])?;
    tx.event(&record.project, About::Nothing, EventBody::TokenRevoked { token: record.id.clone() }, cause)?;
    tx.effect(Effect::TokenRevoked(record.id.clone()));
    record.revoked_at = Some(cause.at);
    Ok(record)
}

fn same(found: &TokenRecord, new: &NewToken) -> bool {
    found.name == new.name && found.roles == new.roles && found.project == new.project
}

fn find(tx: &Tx<'_>, id: &TokenId) -> Result<Option<(TokenRecord, [u8; 32])>, StoreError> {
    let columns = codec::TOKEN_COLUMNS;
    let mut query = tx.conn.prepare_cached(&format!("SELECT {columns} FROM tokens WHERE id = ?1"))?;
    let mut rows = query.query([id.as_str()])?;
    rows.next()?.map(codec::token).transpose()
}

fn store_token(tx: &mut Tx<'_>, new: NewToken, cause: &Cause) -> Result<TokenRecord, TokenError> {
    let mut other =
        tx.conn.prepare_cached("SELECT id FROM tokens WHERE secret = ?1 AND id <> ?2").map_err(StoreError::from)?;
    let taken: Option<String> = other
        .query_row(params![new.secret_sha256, new.id.as_str()], |row| row.get(0))
        .optional()
        .map_err(StoreError::from)?;
    if taken.is_some() {
        return Err(TokenError::Exists);
    }
    let roles = codec::json("roles", &new.roles)?;
    let mut insert = tx
        .conn
        .prepare_cached(
            "INSERT INTO tokens (id, project, name, roles, secret, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (id) DO UPDATE SET project = ?2, name = ?3, roles = ?4, secret = ?5, created_at = ?6, \
             revoked_at = NULL",
        )
        .map_err(StoreError::from)?;
    insert
        .execute(params![
            new.id.as_str(),
            new.project.as_str(),
            new.name.as_str(),
            roles,
            new.secret_sha256,
            cause.at.as_millis()
        ])
        .map_err(StoreError::from)?;
    let NewToken { id, name, roles, project, secret_sha256 } = new;
    let body = EventBody::TokenCreated { token: id.clone(), name: name.clone(), roles: roles.clone() };
    tx.event(&project, About::Nothing, body, cause)?;
    let record = TokenRecord { id, name, roles, project, created_at: cause.at, revoked_at: None };
    tx.effect(Effect::TokenStored(record.clone(), secret_sha256));
    Ok(record)
}
