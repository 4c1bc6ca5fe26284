use super::*;
use std::cell::RefCell;

thread_local! {
    static SYNCED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Remembers what a sync put on the disk: a file's length, or the names in a folder.
pub(super) fn note(path: &Path) {
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
    SYNCED.with_borrow_mut(|all| all.push(synced));
}

fn synced(work: impl FnOnce()) -> Vec<String> {
    SYNCED.with_borrow_mut(Vec::clear);
    work();
    SYNCED.take()
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
    let made = synced(|| disk.make_folder(&root.join("t/metadata")).unwrap());
    assert_eq!(made, ["t: data metadata"]);
    // A folder that another writer made is not on the disk for that.
    fs::create_dir(root.join("u")).unwrap();
    assert_eq!(write("u/c", b""), ["root: t u", "0 bytes", "u: c"]);
}
