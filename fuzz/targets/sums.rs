//! The checksums in a checkpoint's `COMPLETE`: no file outside the folder, and written out the same.

use ppo_train::checkpoint::Sums;

pub fn run(data: &[u8]) {
    super::text(data, |text| match Sums::parse(text) {
        Err(error) => super::refused(format!("{error:#}"), text.len()),
        Ok(sums) => {
            for sum in &sums.0 {
                assert!(!sum.path.starts_with('/') && sum.path.split('/').all(|part| part != ".."), "{}", sum.path);
                assert_eq!(sum.sha256.len(), 64);
            }
            assert_eq!(Sums::parse(&sums.text()).expect("what we write"), sums);
        }
    });
}
