//! What happens to files: cut, overwritten, read-only, held by another program, or no room left for them. Each is a clear
//! error and no panic, and where the cause goes away, so does the error.

use std::error::Error as _;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;

fn database(place: &Place) -> std::path::PathBuf {
    place.folder.path().join("provara.db")
}

/// Fills a place and closes it, which leaves everything in the one database file.
fn filled(plans: u64) -> Place {
    let place = Place::sqlite();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = place.open();
        for n in 1..=plans {
            store.propose(new_plan(n)).await.unwrap();
        }
        store.close().await;
    });
    let left = fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: std::collections::BTreeSet<_> = left.filter_map(|name| name.into_string().ok()).collect();
    assert_eq!(
        left,
        ["lock", "output", "provara.db"].map(str::to_owned).into(),
        "a copy of the database lacks something"
    );
    place
}

/// Commits are appended to a file of their own and copied beside the writer. Were they not, that file would grow with every
/// commit, and the next start would read all of it.
#[tokio::test(flavor = "multi_thread")]
async fn commits_are_copied_while_more_of_them_come() {
    let place = Place::sqlite();
    let store = place.open();
    let appended = place.folder.path().join("provara.db-wal");
    let mut most = 0;
    for round in 0..60 {
        let some = (0..32).map(|n| {
            let mut new = new_plan(1 + round * 32 + n);
            new.plan.command = CommandText::parse(format!("echo {}", "x".repeat(9000))).unwrap();
            new.pending_cap = u32::MAX;
            let store = store.clone();
            tokio::spawn(async move { store.propose(new).await })
        });
        for proposed in some.collect::<Vec<_>>() {
            proposed.await.unwrap().unwrap();
        }
        most = most.max(fs::metadata(&appended).unwrap().len());
    }
    let copied = fs::metadata(database(&place)).unwrap().len();
    assert!(copied > 8 << 20, "{copied} bytes were copied of the {most} that were appended");
    assert!(most < 30 << 20, "{most} bytes were appended before the file began anew");
    store.close().await;
}

#[test]
fn a_cut_or_overwritten_database_is_called_damaged() {
    let place = filled(200);
    let whole = fs::read(database(&place)).unwrap();
    let half = whole.len() / 2 / 4096 * 4096;
    let mut header = whole.clone();
    header.splice(..64, [b'x'; 64]);
    let mut pages = whole.clone();
    pages.splice(4096.., vec![0xff; whole.len() - 4096]);
    let harms: [(&str, &[u8]); 4] = [
        ("cut in half", whole.get(..half).unwrap()),
        ("cut within its first page", whole.get(..700).unwrap()),
        ("its header overwritten", &header),
        ("its pages overwritten", &pages),
    ];
    for (what, bytes) in harms {
        fs::write(database(&place), bytes).unwrap();
        match place.try_open() {
            Err(OpenError::Store(error @ StoreError::Damaged(_))) => {
                assert!(error.to_string().contains("restore"), "{error}");
                assert!(error.source().is_some(), "the log would not say what is damaged");
            }
            other => panic!("{what}: {other:?}"),
        }
        // A failed opening holds nothing: the copy that is put back opens.
        fs::write(database(&place), &whole).unwrap();
        assert_eq!(place.open().head(), 200, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_within_an_open_database_is_an_error_for_whoever_meets_it() {
    let place = tokio::task::spawn_blocking(|| filled(400)).await.unwrap();
    let store = place.open();
    let file = OpenOptions::new().write(true).open(database(&place)).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in 1..pages {
        file.write_all_at(&[0xff; 4096], page * 4096).unwrap();
    }
    let read = store.plans(&project(), Owner::Everyone, PlanFilter { limit: 400, ..PlanFilter::default() }).await;
    assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
    // What the writer remembers it need not read: it may not have met the damage yet.
    let written = store.propose(new_plan(500)).await;
    assert!(matches!(written, Ok(_) | Err(ProposeError::Store(StoreError::Damaged(_)))), "{written:?}");
    store.close().await;
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let place = filled(1);
    let conn = rusqlite::Connection::open(database(&place)).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let bytes = fs::read(database(&place)).unwrap();
    assert!(matches!(place.try_open(), Err(OpenError::TooNew { found: 99, .. })));
    assert_eq!(fs::read(database(&place)).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_program_holds_the_database_writing_is_busy_and_reading_goes_on() {
    let place = Place::sqlite();
    let store = place.open();
    store.propose(new_plan(1)).await.unwrap();
    let other = rusqlite::Connection::open(database(&place)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.propose(new_plan(2)).await;
    assert!(matches!(refused, Err(ProposeError::Store(StoreError::Busy(_)))), "{refused:?}");
    assert_eq!(all_plans(&store).await.len(), 1);
    let judged = |store: &Store| store.measures().judgements().map(|(_, count)| count).sum::<u64>();
    assert_eq!((store.measures().failed_commits.get(), judged(&store)), (1, 1), "what was taken back was counted");
    other.execute_batch("ROLLBACK").unwrap();
    store.propose(new_plan(2)).await.unwrap();
    assert_eq!(sound(&store).await.plans.len(), 2);
}

/// A small file system that this thread alone sees, and every one that it starts from now on.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn on(folder: &'a Path) -> Option<Self> {
        let alone = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=2m"))
        });
        if let Err(error) = alone {
            assert!(std::env::var_os("CI").is_none(), "no disk of our own ({error}), and in CI nothing is skipped");
            eprintln!("SKIPPED: only root can mount a small disk ({error}), so none was filled");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // Else the folder below could not be removed. It goes with the thread in any case.
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_and_room_mends_it() {
    let place = Place::sqlite();
    let Some(_disk) = SmallDisk::on(place.folder.path()) else { return };
    // Only now, so that its threads and the store's see the small disk.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = place.open_keeping(1 << 20).unwrap();
        let _ = running(&store, 1_000_000).await;
        let mut output = store.output_writer(&run_of(1_000_000)).unwrap();
        let ballast = place.folder.path().join("ballast");
        let mut acknowledged = 1;
        for round in 0..3 {
            let room = nix::sys::statvfs::statvfs(place.folder.path()).unwrap();
            let free = usize::try_from(room.blocks_available() * room.fragment_size()).unwrap();
            fs::write(&ballast, vec![0; free.saturating_sub(64 * 1024)]).unwrap();
            let mut refused = None;
            for n in 0..2000 {
                match store.propose(new_plan(round * 10_000 + n)).await {
                    Ok(_) => acknowledged += 1,
                    Err(error) => {
                        refused = Some(error);
                        break;
                    }
                }
            }
            let refused = refused.unwrap();
            assert!(matches!(&refused, ProposeError::Store(StoreError::Full(_))), "{refused:?}");
            // Many at once, in common commits: every one is refused, none hangs, none is half there.
            let many: Vec<_> = (5000..5032)
                .map(|n| {
                    let (store, mut new) = (store.clone(), new_plan(round * 10_000 + n));
                    // Too large for SQLite's memory: it takes the whole transaction back in the middle of it.
                    new.plan.stdin = Some(vec![0; 1 << 20]);
                    tokio::spawn(async move { store.propose(new).await })
                })
                .collect();
            for one in many {
                let refused = one.await.unwrap();
                assert!(matches!(&refused, Err(ProposeError::Store(StoreError::Full(_)))), "{refused:?}");
            }
            assert_eq!(all_plans(&store).await.len(), acknowledged, "reading needs no room");
            let cut = output.append(Stream::Stdout, &[b'x'; 200_000]).unwrap_err();
            assert_eq!(cut.kind(), std::io::ErrorKind::StorageFull);
            fs::remove_file(&ballast).unwrap();
            store.propose(new_plan(round * 10_000 + 9000)).await.unwrap();
            acknowledged += 1;
            output.append(Stream::Stdout, b"goes on;").unwrap();
        }
        store.record(ran(run_of(1_000_000), 24), cause(3)).await.unwrap();
        let page = store.read_output(&project(), &run_of(1_000_000), Stream::Stdout, 0, 1 << 20).await.unwrap();
        assert_eq!(&page.bytes[..], b"goes on;goes on;goes on;", "what found no room is not in between");
        let before = sound(&store).await;
        assert_eq!(before.plans.len(), acknowledged);
        store.close().await;
        drop((store, output));
        assert_eq!(sound(&place.open()).await, before);
    });
}

#[test]
fn a_read_only_folder_is_named_and_nothing_is_written() {
    let place = Place::sqlite();
    let Some(_disk) = SmallDisk::on(place.folder.path()) else { return };
    let read_only =
        |how| mount(None::<&str>, place.folder.path(), None::<&str>, MsFlags::MS_REMOUNT | how, None::<&str>);
    read_only(MsFlags::MS_RDONLY).unwrap();
    match place.try_open() {
        Err(OpenError::Io { path, cause }) => {
            assert!(path.starts_with(place.folder.path()));
            assert_eq!(cause.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        }
        other => panic!("{other:?}"),
    }
    read_only(MsFlags::empty()).unwrap();
    assert_eq!(place.open().head(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_that_tore_a_lost_runs_output_leaves_the_run_readable_and_a_recorded_one_complains() {
    let place = Place::sqlite();
    let store = place.open_keeping(1 << 20).unwrap();
    for n in 1..=3 {
        running(&store, n).await;
        store.output_writer(&run_of(n)).unwrap().append(Stream::Stdout, &[b'x'; 100_000]).unwrap();
    }
    store.record(ran(run_of(3), 100_000), cause(3)).await.unwrap();
    drop(store);
    let spool = |n: u64| place.folder.path().join(format!("output/{}.stdout", run_of(n)));
    // An empty file, and one that ends early: both are what a file system may keep of what was never synced.
    for (n, left) in [(1, 0), (2, 5_000), (3, 5_000)] {
        OpenOptions::new().write(true).open(spool(n)).unwrap().set_len(left).unwrap();
    }
    let store = place.open_keeping(1 << 20).unwrap();
    store.recover(cause(9)).await.unwrap();
    for n in [1, 2] {
        let page = store.read_output(&project(), &run_of(n), Stream::Stdout, 0, 1 << 20).await.unwrap();
        assert_eq!((page.bytes.len(), page.ended), (0, true));
    }
    let page = store.read_output(&project(), &run_of(3), Stream::Stdout, 0, 1 << 20).await;
    assert!(matches!(page, Err(StoreError::Io(_))), "a recorded output was cut, and nobody is told: {page:?}");
}
