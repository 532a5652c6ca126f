//! What a stranger needs to check us: signed checkpoints and proofs.

use provara_audit::merkle::Hash;
use provara_domain::PlanId;
use provara_faults::{Place, reached};
use provara_store::{LogEntry, Owner, StoreError};

use crate::gateway::{Gateway, Inner};

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The log is shorter than that.
    #[error("the log has {head} entries; position or size {asked} is beyond it")]
    Beyond {
        /// What was asked for.
        asked: u64,
        /// The number of entries.
        head: u64,
    },
    /// The store failed.
    #[error("could not read the log")]
    Store(#[from] StoreError),
}

impl Gateway {
    /// Returns a signed checkpoint of the whole log as it stands: a C2SP signed note.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn checkpoint(&self) -> Result<String, StoreError> {
        self.inner.sign_head().await
    }

    /// Returns the verifier key of the log, to be kept where this server cannot reach it.
    pub fn log_vkey(&self) -> String {
        self.inner.log_key.vkey()
    }

    /// Returns the root hash of the log's first `size` entries.
    ///
    /// # Errors
    /// When the log is shorter or the store fails.
    pub async fn root(&self, size: u64) -> Result<Hash, EvidenceError> {
        self.within(size, self.head())?;
        Ok(self.inner.store.root(size).await?)
    }

    /// Returns the proof that the entry at `position` is one of the first `size`.
    ///
    /// # Errors
    /// When the log is shorter or the store fails.
    pub async fn inclusion(&self, position: u64, size: u64) -> Result<Vec<Hash>, EvidenceError> {
        let head = self.head();
        self.within(size, head)?;
        if position >= size {
            return Err(EvidenceError::Beyond { asked: position, head: size });
        }
        Ok(self.inner.store.inclusion(position, size).await?)
    }

    /// Returns the proof that the first `old` entries are the beginning of the first `new`.
    ///
    /// # Errors
    /// When the log is shorter, `old` is larger than `new`, or the store fails.
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, EvidenceError> {
        self.within(new, self.head())?;
        self.within(old, new)?;
        Ok(self.inner.store.consistency(old, new).await?)
    }

    /// Returns the positions of a plan's entries, in order.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn positions_of(&self, plan: &PlanId) -> Result<Vec<u64>, StoreError> {
        self.inner.store.positions_of(&self.inner.project, plan).await
    }

    /// Returns at most `limit` entries of everyone from position `from` on: for the mirror and for export.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn all_entries(&self, from: u64, limit: u32) -> Result<Vec<LogEntry>, StoreError> {
        self.inner.store.entries(&self.inner.project, Owner::Everyone, from, limit).await
    }

    /// Returns an entry as a line of an export, without the line feed.
    pub fn export_line(&self, entry: &LogEntry) -> String {
        provara_audit::export::line(entry.position, &entry.leaf)
    }

    fn within(&self, asked: u64, head: u64) -> Result<(), EvidenceError> {
        if asked <= head { Ok(()) } else { Err(EvidenceError::Beyond { asked, head }) }
    }
}

impl Inner {
    async fn sign_head(&self) -> Result<String, StoreError> {
        let size = self.store.head();
        if let Some((signed, note)) = self.store.latest_checkpoint().await?
            && signed == size
        {
            return Ok(note);
        }
        let root = self.store.root(size).await?;
        let note = self.log_key.sign(size, &root);
        reached(Place::CheckpointSigned);
        let at = self.platform.now();
        self.store.save_checkpoint(size, &note, at).await?;
        self.note_signed(size, at);
        Ok(note)
    }
}
