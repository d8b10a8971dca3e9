use super::*;
use anyhow::bail;

fn scratch() -> (tempfile::TempDir, Assets) {
    let temporary = tempfile::tempdir().unwrap();
    let lock = File::create(temporary.path().join("lock")).unwrap();
    let assets = Assets { directory: temporary.path().to_path_buf(), _lock: lock };
    (temporary, assets)
}

#[test]
fn a_part_that_failed_half_way_is_not_taken_for_a_good_one() {
    let (_temporary, assets) = scratch();
    let failed = assets.part("kernel", |directory| {
        fs::write(directory.join("half"), "x")?;
        bail!("the network went away")
    });
    assert!(failed.is_err());
    assert!(!assets.directory.join("kernel").exists());

    let made = assets.part("kernel", |directory| Ok(fs::write(directory.join("whole"), "x")?)).unwrap();
    assert!(made.join("whole").exists());
    assert!(!made.join("half").exists());
}

#[test]
fn a_part_that_is_there_is_not_made_again() {
    let (_temporary, assets) = scratch();
    assets.part("busybox", |_| Ok(())).unwrap();
    assets.part("busybox", |_| bail!("made twice")).unwrap();
}

#[test]
fn a_file_is_rewritten_when_its_contents_change() {
    let (_temporary, assets) = scratch();
    assets.file("initrd", b"old").unwrap();
    let path = assets.file("initrd", b"new").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"new");
}

#[test]
fn what_a_killed_run_left_is_swept_away_and_whole_parts_stay() {
    let (_temporary, assets) = scratch();
    fs::create_dir_all(assets.directory.join(".kernel-x/part")).unwrap();
    fs::write(assets.directory.join(".tmpx"), "").unwrap();
    assets.part("kernel", |_| Ok(())).unwrap();
    assets.sweep();
    let mut left: Vec<_> = assets.directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["kernel", "lock"]);
}
