use super::*;
use std::cell::RefCell;

thread_local! {
    /// None where no test looks: elsewhere other files of a folder may be on their way.
    static SYNCED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Remembers what a sync put on the disk: a file's length, or the names in a folder.
pub(super) fn note(path: &Path) {
    if SYNCED.with_borrow(Option::is_none) {
        return;
    }
    let is_temporary = |name: &str| name.starts_with(TEMPORARY);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let synced = if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| name(&entry.unwrap().path()));
        let mut names: Vec<String> = entries.collect();
        names.sort();
        assert!(!names.iter().any(|name| is_temporary(name)), "{names:?}");
        format!("{}: {}", name(path), names.join(" "))
    } else {
        assert!(is_temporary(&name(path)), "a file that has its name may be read already");
        format!("{} bytes", fs::metadata(path).unwrap().len())
    };
    SYNCED.with_borrow_mut(|all| all.as_mut().expect("it was looked at").push(synced));
}

fn synced(work: impl FnOnce()) -> Vec<String> {
    SYNCED.set(Some(Vec::new()));
    work();
    SYNCED.take().unwrap_or_default()
}

#[test]
fn bytes_come_before_the_name_and_the_name_before_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
    let root = folder.path().join("made").join("root");
    let mut disk = None;
    let opened = synced(|| disk = Some(LocalDisk::open(&root).unwrap()));
    assert_eq!(opened, [format!("{top}: made"), "made: root".to_owned()]);
    let disk = disk.unwrap();
    let write = |name: &str, bytes: &[u8]| synced(|| disk.write(&root.join(name), bytes).unwrap());
    assert_eq!(write("t/data/a", b"first"), ["root: t", "t: data", "5 bytes", "data: a"]);
    assert_eq!(write("t/data/b", b"second"), ["6 bytes", "data: a b"]);
    assert_eq!(write("t/data/a", b"other"), ["5 bytes", "data: a b"]);
    let made = synced(|| disk.make_folders(&[&root.join("t/metadata")]).unwrap());
    assert_eq!(made, ["t: data metadata"]);
    // A folder that another writer made is not on the disk for that.
    fs::create_dir(root.join("u")).unwrap();
    assert_eq!(write("u/c", b""), ["root: t u", "0 bytes", "u: c"]);
}

#[test]
fn files_of_one_commit_share_the_syncs_of_their_folders() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let disk = LocalDisk::open(&root).unwrap();
    let made = || disk.make_folders(&[&root.join("n/t/data"), &root.join("n/t/metadata")]).unwrap();
    assert_eq!(synced(made), ["root: n", "n: t", "t: data metadata"]);
    let files: Vec<PathBuf> =
        (0..10).map(|n| root.join(format!("n/t/data/{}/{n}", n % 2))).collect();
    let written = synced(|| {
        for file in &files {
            disk.write_deferred(file, b"rows").unwrap();
        }
        disk.sync_folders(files.iter().map(PathBuf::as_path)).unwrap();
    });
    let mut expected = vec!["data: 0", "4 bytes", "data: 0 1"];
    expected.extend(["4 bytes"; 9]);
    expected.extend(["0: 0 2 4 6 8", "1: 1 3 5 7 9"]);
    assert_eq!(written, expected);
}
