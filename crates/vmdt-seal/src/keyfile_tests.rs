use std::os::unix::fs::{PermissionsExt, symlink};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::prekey::PrekeyConfig;

/// A directory of its own per test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("vmdt-seal-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("identity")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([8; 32])
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_identity_is_created_once_and_then_loaded() {
    let directory = Directory::new("create");
    let path = directory.file();
    let (made, origin) = load_or_create(&path, &mut rng()).unwrap();
    assert_eq!(origin, Origin::Created);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(directory.names(), ["identity"], "nothing is left over");
    let mut other = ChaCha20Rng::from_seed([9; 32]);
    let (loaded, origin) = load_or_create(&path, &mut other).unwrap();
    assert_eq!(origin, Origin::Loaded);
    assert_eq!(loaded.public(), made.public());
    assert_eq!(load(&path).unwrap().public(), made.public());
    let refused = store(&path, &made).unwrap_err();
    assert!(matches!(refused, KeyFileError::Exists { .. }));
    assert_eq!(fs::read(&path).unwrap().len(), 75);
}

#[test]
fn a_file_that_others_may_use_is_refused() {
    let directory = Directory::new("mode");
    let path = directory.file();
    load_or_create(&path, &mut rng()).unwrap();
    for open in [0o640, 0o604, 0o660, 0o666, 0o610] {
        set_mode(&path, open);
        let refused = load_or_create(&path, &mut rng()).unwrap_err();
        assert!(matches!(refused, KeyFileError::Permissions { mode, .. } if mode == open));
        assert!(refused.to_string().contains("chmod 600"));
    }
    set_mode(&path, 0o400);
    assert!(load(&path).is_ok());
}

#[test]
fn a_damaged_file_is_refused_and_never_replaced() {
    let directory = Directory::new("damage");
    let path = directory.file();
    load_or_create(&path, &mut rng()).unwrap();
    let right = fs::read(&path).unwrap();
    for at in 0..right.len() - 1 {
        let mut damaged = right.clone();
        damaged[at] = if damaged[at] == b'a' { b'b' } else { b'a' };
        fs::write(&path, &damaged).unwrap();
        let refused = load_or_create(&path, &mut rng()).unwrap_err();
        assert!(
            matches!(refused, KeyFileError::NotAnIdentity { .. }),
            "{at}"
        );
        assert_eq!(fs::read(&path).unwrap(), damaged);
    }
    for len in 0..right.len() - 1 {
        fs::write(&path, &right[..len]).unwrap();
        assert!(load(&path).is_err());
    }
    fs::write(&path, vec![b'a'; 257]).unwrap();
    let refused = load(&path).unwrap_err();
    assert!(matches!(
        refused,
        KeyFileError::TooLong { allowed: 256, .. }
    ));
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let directory = Directory::new("kind");
    let refused = load(&directory.0).unwrap_err();
    assert!(matches!(refused, KeyFileError::NotAFile { .. }));
    let nowhere = directory.0.join("no").join("identity");
    let refused = load_or_create(&nowhere, &mut rng()).unwrap_err();
    assert!(refused.to_string().contains("identity"));
    // A dangling link is not created through: it would decide where the secret goes.
    let link = directory.0.join("link");
    symlink(directory.0.join("elsewhere"), &link).unwrap();
    assert!(load_or_create(&link, &mut rng()).is_err());
    assert_eq!(directory.names(), ["link"]);
}

#[test]
fn of_many_creators_one_wins_and_all_have_its_identity() {
    let directory = Directory::new("race");
    let path = directory.file();
    let keys: Vec<_> = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..8)
            .map(|seed| {
                let path = &path;
                scope.spawn(move || {
                    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
                    load_or_create(path, &mut rng).unwrap()
                })
            })
            .collect();
        creators
            .into_iter()
            .map(|creator| creator.join().unwrap())
            .collect()
    });
    let created = |key: &&(SecretIdentity, Origin)| key.1 == Origin::Created;
    assert_eq!(keys.iter().filter(created).count(), 1);
    assert!(keys.iter().all(|key| key.0.public() == keys[0].0.public()));
    assert_eq!(directory.names(), ["identity"]);
}

#[test]
fn prekeys_are_replaced_as_a_whole() {
    let directory = Directory::new("prekeys");
    let path = directory.0.join("prekeys");
    assert!(load_prekeys(&path).unwrap().is_none());
    let mut store = PrekeyStore::new(PrekeyConfig::default(), 0, &mut rng());
    store_prekeys(&path, &store).unwrap();
    store.replace(1, &mut rng());
    store_prekeys(&path, &store).unwrap();
    assert_eq!(mode(&path), 0o600);
    let read = load_prekeys(&path).unwrap().unwrap();
    assert_eq!(*read.encode(), *store.encode());
    assert_eq!(directory.names(), ["prekeys"]);
    replace_secret(&path, b"nonsense").unwrap();
    let refused = load_prekeys(&path).unwrap_err();
    assert!(matches!(refused, KeyFileError::NotPrekeys { .. }));
}
