//! The doors, real and simulated, behave alike; faults come as they are told.

use std::path::Path;
use std::time::Duration;

use super::*;

fn conforms(files: &dyn Files, folder: &Path) {
    let path = folder.join("a");
    files.create_dir_all(folder).unwrap();
    assert_eq!(files.read(&path).unwrap_err().kind, FileErrorKind::NotFound);
    let mut file = files.open_append(&path).unwrap();
    file.append(b"one").unwrap();
    file.append(b"two").unwrap();
    file.sync().unwrap();
    file.truncate(4).unwrap();
    file.append(b"!").unwrap();
    assert_eq!(files.read(&path).unwrap(), b"onet!");
    let open = files.open_read(&path).unwrap();
    let mut part = [0; 3];
    open.read_at(2, &mut part).unwrap();
    assert_eq!((&part, open.length().unwrap()), (b"et!", 5));
    assert!(open.read_at(3, &mut part).is_err());
    files.write_atomic(&folder.join("b"), b"whole").unwrap();
    let mut listed = files.list(folder).unwrap();
    listed.sort();
    assert_eq!(listed, [folder.join("a"), folder.join("b")]);
    files.remove_file(&path).unwrap();
    assert!(!files.exists(&path) && files.is_dir(folder));
    let lock = files.lock(&folder.join("LOCK")).unwrap();
    let refused = files.lock(&folder.join("LOCK")).err().unwrap();
    assert_eq!(refused.kind, FileErrorKind::Locked);
    drop(lock);
    files.lock(&folder.join("LOCK")).unwrap();
    files.remove_dir_all(folder).unwrap();
    files.remove_dir_all(folder).unwrap();
    assert!(!files.exists(folder));
}

#[test]
fn real_and_simulated_files_conform() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&RealFiles, &folder.path().join("data"));
    conforms(&SimulatedFiles::new(1), Path::new("/data"));
}

#[test]
fn a_crash_keeps_what_was_synced_and_at_most_a_part_of_the_rest() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let files = SimulatedFiles::new(seed);
        let mut file = files.open_append(Path::new("/a")).unwrap();
        file.append(b"synced").unwrap();
        file.sync().unwrap();
        files.sync_dir(Path::new("/")).unwrap();
        file.append(b"unsynced").unwrap();
        files.crash();
        let bytes = files.read(Path::new("/a")).unwrap();
        assert!(bytes.starts_with(b"synced"), "{bytes:?}");
        kept.insert(bytes.len());
    }
    assert!(kept.len() > 3 && kept.contains(&6), "{kept:?}");
}

#[test]
fn a_name_is_only_sure_once_its_folder_is_synced() {
    let (mut gone, mut back) = (0, 0);
    for seed in 0..50 {
        let files = SimulatedFiles::new(seed);
        for path in ["/kept", "/removed"] {
            files.open_append(Path::new(path)).unwrap().sync().unwrap();
        }
        files.sync_dir(Path::new("/")).unwrap();
        files
            .open_append(Path::new("/new"))
            .unwrap()
            .sync()
            .unwrap();
        files.remove_file(Path::new("/removed")).unwrap();
        files.crash();
        assert!(files.exists(Path::new("/kept")));
        gone += u32::from(!files.exists(Path::new("/new")));
        back += u32::from(files.exists(Path::new("/removed")));
    }
    assert!(
        (10..40).contains(&gone) && (10..40).contains(&back),
        "{gone} {back}"
    );
}

#[test]
fn a_simulated_environment_repeats_itself() {
    let numbers = |seed| {
        let (env, clock, _) = Env::simulated(seed);
        env.clock.sleep(Duration::from_secs(1));
        clock.advance(Duration::from_secs(1));
        let numbers: Vec<u64> = (0..5).map(|_| env.random.next_u64()).collect();
        (env.clock.now(), numbers)
    };
    assert_eq!(numbers(7), numbers(7));
    assert_ne!(numbers(7), numbers(8));
    assert_eq!(numbers(7).0, 2_000_000);
}

#[test]
fn a_queue_is_bounded_and_says_so() {
    let (sender, receiver) = queue::bounded("test.max", 2);
    assert!(sender.try_send(1).is_ok() && sender.try_send(2).is_ok());
    assert_eq!(sender.try_send(3).unwrap_err().into_inner(), 3);
    assert_eq!((sender.waiting(), sender.limit()), (2, "test.max"));
    assert_eq!(receiver.recv(), Ok(1));
    assert_eq!(sender.waiting(), 1);
    drop(sender);
    assert_eq!((receiver.recv(), receiver.recv().is_err()), (Ok(2), true));
}

/// A program that is being started holds copies of all open files until it runs, that of a lock among them.
#[test]
fn a_lock_that_was_let_go_is_free_while_programs_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("LOCK");
    let done = std::sync::atomic::AtomicBool::new(false);
    let done = &done;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let ran = std::process::Command::new("true").status();
                    assert!(ran.is_ok_and(|status| status.success()));
                }
            });
        }
        for _ in 0..600 {
            let locked = RealFiles.lock(&path).map_err(|e| e.kind);
            if locked.is_err() {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            drop(locked.expect("nobody holds it"));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
