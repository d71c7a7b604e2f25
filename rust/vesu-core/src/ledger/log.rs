//! The append-only file behind a chain.
//!
//! `append` puts a record into a buffer; `flush` hands it to the system (it then survives this process); `sync`
//! makes it durable (it then survives the machine). Every operation either succeeds or changes nothing that was
//! accepted before. One fsync makes all records before it durable, whoever appended them: *group commit*.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::chain::Chain;
use super::fields::Fields;
use super::iterations::IterationBlock;
use super::merkle::hex;
use super::scan::{Durable, Tail, open_regular, scan_end};
use super::table::{self, Column};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// An append first empties a buffer that holds this many bytes or is this old.
const FLUSH_BYTES: usize = 256 << 10;
const FLUSH_AGE: Duration = Duration::from_secs(1);

/// The record that tells of a torn tail cut off.
pub const TAIL_TRUNCATED: &str = "LEDGER_TAIL_TRUNCATED";

#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    chain: Chain,
    pending: Vec<u8>,
    last_flush: Instant,
    torn_bytes: u64,
    /// Whether the file may hold bytes that no fsync has covered.
    unsynced: bool,
    sync_failed: bool,
    process: u32,
}

impl Log {
    /// Open or create the log at `path` and continue its chain.
    ///
    /// An existing log is verified whole. A torn last record is cut off, and a [`TAIL_TRUNCATED`] record says so.
    ///
    /// With `durable`, a tree head that a sync covered, damage behind its records is cut off like a torn record, if the
    /// log begins with that tree: a power cut may keep later pages and lose earlier ones that no sync had covered.
    pub fn open(path: &Path, durable: Option<Durable>, cancel: &Cancel) -> Result<Self> {
        let file = open_regular(path, OpenOptions::new().read(true).append(true).create(true))?;
        lock(&file, path)?;
        let (chain, tail) = scan_end(durable, &file, path, cancel)?;
        let mut log = Self {
            path: path.to_owned(),
            file,
            chain,
            pending: Vec::new(),
            last_flush: Instant::now(),
            torn_bytes: tail.bytes,
            // An earlier process may have died before its fsync.
            unsynced: true,
            sync_failed: false,
            process: std::process::id(),
        };
        // Whoever made the file may have died before its name was durable.
        log.io(sync_folder(path))?;
        if tail.bytes > 0 {
            log.cut_tail(&tail)?;
        }
        Ok(log)
    }

    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Bytes of a torn record that opening cut off.
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Append one record; returns its number. `ts_ns` of `None` is the system's time.
    pub fn append(&mut self, event: &str, fields: &Fields, ts_ns: Option<u64>) -> Result<u64> {
        self.make_room()?;
        self.chain.append(event, fields, ts_ns.unwrap_or_else(now_ns), &mut self.pending)
    }

    /// Append records in order with one time, all or none; returns the first one's number.
    pub fn append_many<'a>(
        &mut self,
        events: impl IntoIterator<Item = (&'a str, &'a Fields)>,
        ts_ns: Option<u64>,
    ) -> Result<u64> {
        self.make_room()?;
        let ts_ns = ts_ns.unwrap_or_else(now_ns);
        let (before, accepted) = (self.chain.clone(), self.pending.len());
        let appended = events
            .into_iter()
            .try_for_each(|(event, fields)| self.chain.append(event, fields, ts_ns, &mut self.pending).map(|_| ()));
        let first = before.size();
        if appended.is_err() {
            self.chain = before;
            self.pending.truncate(accepted);
        }
        appended.map(|()| first)
    }

    /// Append one record per candidate, all or none; returns the first one's number.
    pub fn append_iterations(
        &mut self,
        event: &str,
        block: IterationBlock<'_>,
        common: &[(String, Vec<u8>)],
        ts_ns: Option<u64>,
    ) -> Result<u64> {
        let records = block.records(common)?;
        self.append_many(records.iter().map(|fields| (event, fields)), ts_ns)
    }

    /// Append one record per row of a table, all or none; returns the first one's number.
    pub fn append_table(
        &mut self,
        event: &str,
        columns: &[(String, Column<'_>)],
        common: &[(String, Vec<u8>)],
        ts_ns: Option<u64>,
    ) -> Result<u64> {
        let records = table::rows(columns, common)?;
        self.append_many(records.iter().map(|fields| (event, fields)), ts_ns)
    }

    /// Hand every accepted record to the system. After a failure they stay accepted: call again.
    pub fn flush(&mut self) -> Result<()> {
        self.check_usable()?;
        if self.process != std::process::id() {
            return self.io(Err(io::Error::other("this event log was opened by the parent of this process")));
        }
        self.unsynced |= !self.pending.is_empty();
        let outcome = drain(&mut self.pending, &mut self.file);
        self.last_flush = Instant::now();
        self.io(outcome)
    }

    /// Flush, then fsync: on return every accepted record is durable. Nothing is done twice: of several threads that
    /// wait here, the first one's fsync serves all that appended before it.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        if !self.unsynced {
            return Ok(());
        }
        let outcome = self.file.sync_data();
        // After a failed fsync the system may have dropped the pages and call them clean: no later success on
        // this descriptor would mean anything.
        self.sync_failed = outcome.is_err();
        self.unsynced = outcome.is_err();
        self.io(outcome)
    }

    /// Flush a full or old buffer *before* a record is accepted, so that a full disk refuses the record whole.
    fn make_room(&mut self) -> Result<()> {
        let due = self.pending.len() >= FLUSH_BYTES || self.last_flush.elapsed() >= FLUSH_AGE;
        if due { self.flush() } else { self.check_usable() }
    }

    fn check_usable(&self) -> Result<()> {
        if self.sync_failed {
            return self.io(Err(io::Error::other("an fsync failed before; open the log again to go on")));
        }
        Ok(())
    }

    fn cut_tail(&mut self, tail: &Tail) -> Result<()> {
        self.io(self.file.set_len(tail.start))?;
        let evidence = serde_json::json!({
            "torn_bytes": tail.bytes,
            "torn_sha256": hex(&tail.sha256),
            "problem": tail.problem,
        });
        let fields = evidence.as_object().map(Fields::from_json).transpose()?.unwrap_or_default();
        self.append(TAIL_TRUNCATED, &fields, None)?;
        self.sync()
    }

    fn io<T>(&self, outcome: io::Result<T>) -> Result<T> {
        outcome.map_err(|source| Error::io(&self.path, source))
    }
}

impl Drop for Log {
    // `File::unlock` is younger than the oldest compiler that the manifest names.
    fn drop(&mut self) {
        // A forked child holds a copy of the buffer: its records, and the lock, are the parent's.
        if self.process != std::process::id() {
            return;
        }
        // Whoever wants to hear of a failure calls `flush` or `sync` first.
        let _ = self.flush();
        // Closing alone would leave the lock with a child forked meanwhile.
        let _ = self.file.unlock();
    }
}

/// Write `pending` out, forgetting just what was written: after an error the rest is still there to try again.
fn drain(pending: &mut Vec<u8>, sink: &mut impl Write) -> io::Result<()> {
    let mut written = 0;
    let mut outcome = Ok(());
    while outcome.is_ok() && written < pending.len() {
        match sink.write(&pending[written..]) {
            Ok(0) => outcome = Err(ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => outcome = Err(error),
        }
    }
    pending.drain(..written);
    outcome
}

/// One writer a file: two would cut each other's chains.
// `File::try_lock` is younger than the oldest compiler that the manifest names.
fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Error::io(path, io::Error::other("another writer has this event log open")))
        }
        // Some network file systems know no locks; a log without one is better than no log.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Make a new file's name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most three bytes a call; call number `fail_at` fails.
    struct Sink {
        taken: Vec<u8>,
        calls: usize,
        fail_at: usize,
        kind: ErrorKind,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            if self.calls == self.fail_at {
                return Err(self.kind.into());
            }
            let n = bytes.len().min(3);
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_write_that_fails_anywhere_loses_and_repeats_nothing() {
        for fail_at in 1..=5 {
            for kind in [ErrorKind::StorageFull, ErrorKind::Interrupted] {
                let mut sink = Sink { taken: Vec::new(), calls: 0, fail_at, kind };
                let mut pending = b"0123456789".to_vec();
                if drain(&mut pending, &mut sink).is_err() {
                    assert_eq!([&sink.taken[..], &pending[..]].concat(), b"0123456789");
                    drain(&mut pending, &mut sink).unwrap();
                }
                assert_eq!((&sink.taken[..], pending.len()), (&b"0123456789"[..], 0), "{fail_at} {kind}");
            }
        }
    }

    #[test]
    fn one_fsync_serves_all_records_before_it() {
        let path = std::env::temp_dir().join(format!("vesu-group-commit-{}", std::process::id()));
        let mut log = Log::open(&path, None, &Cancel::new()).unwrap();
        assert!(log.unsynced, "an earlier process may have left bytes without an fsync");
        for flush_between in [false, true] {
            for _ in 0..3 {
                log.append("TEST", &Fields::default(), None).unwrap();
                if flush_between {
                    log.flush().unwrap();
                    assert!(log.unsynced);
                }
            }
            log.sync().unwrap();
            assert!(!log.unsynced && log.pending.is_empty());
            log.flush().unwrap();
            assert!(!log.unsynced, "nothing new, nothing to do");
        }
        drop(log);
        std::fs::remove_file(&path).unwrap();
    }
}
