//! RESULTS: found to be writable before the run, and made whole in one step after it. A folder gets a folder of its own for each run,
//! named by the run's id, so two runs at once never share one; a `.json` file or a special file gets the result alone.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A place for results that this process can write, and no other run writes meanwhile. Unless they are saved, nothing is left.
#[derive(Debug)]
pub struct Results {
    setting: PathBuf,
    place: Destination,
    is_saved: bool,
}

#[derive(Debug)]
enum Destination {
    /// `unfinished` within `parent`, until all files are written.
    Folder { parent: PathBuf, unfinished: PathBuf, is_parent_new: bool },
    /// `part` is beside the place until the result is whole; nothing if the place is no regular file.
    File { path: PathBuf, file: File, part: Option<PathBuf> },
}

impl Results {
    /// Opens the place that RESULTS names for the run of this id, if that is known yet; nothing if it names none.
    ///
    /// # Errors
    /// One line: the variable, its value and why it cannot be written.
    pub fn open(setting: Option<&Path>, run_id: Option<&str>) -> Result<Option<Self>, String> {
        let Some(path) = setting else { return Ok(None) };
        if let Some(run_id) = run_id.filter(|run_id| path.join(run_id).exists()) {
            let of = path.display();
            return Err(format!("RUN_ID={run_id}: expected another name, because {of} has a run that is called so"));
        }
        let found = fs::metadata(path);
        let is_special = found.as_ref().is_ok_and(|found| !found.is_file() && !found.is_dir());
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let is_file = is_special || (is_json && !found.is_ok_and(|found| found.is_dir()));
        let place = if is_file { Destination::file(path, is_special) } else { Destination::folder(path) };
        let expected = "expected a folder or a .json file that can be written, or off";
        let place = place.map_err(|error| format!("RESULTS={}: {expected}: {error}", path.display()))?;
        Ok(Some(Self { setting: path.to_owned(), place, is_saved: false }))
    }

    /// The folder that the run with this id will have; nothing if its result is to be one file.
    pub(crate) fn folder(&self, run_id: &str) -> Option<PathBuf> {
        match &self.place {
            Destination::Folder { parent, .. } => Some(parent.join(run_id)),
            Destination::File { .. } => None,
        }
    }

    /// Where the result of the run with this id will be.
    pub(crate) fn path(&self, run_id: &str) -> PathBuf {
        match &self.place {
            Destination::Folder { parent, .. } => parent.join(run_id),
            Destination::File { path, .. } => path.clone(),
        }
    }

    /// Writes the result, and in a folder all other files, by name and contents.
    ///
    /// # Errors
    /// One line, if they cannot be written.
    pub(crate) fn save(mut self, run_id: &str, result: &[u8], others: &[(&str, Vec<u8>)]) -> Result<(), String> {
        let saved = self.place.save(run_id, result, others);
        self.is_saved = saved.is_ok();
        saved.map_err(|error| format!("RESULTS={}: cannot write it: {error}", self.setting.display()))
    }
}

/// The result's name in a run's folder.
pub(crate) const RESULT: &str = "result.json";

impl Destination {
    fn folder(path: &Path) -> io::Result<Self> {
        let is_parent_new = !path.exists();
        fs::create_dir_all(path)?;
        let unfinished = path.join(format!(".unfinished-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        fs::create_dir(&unfinished)?;
        let place = Self::Folder { parent: path.to_owned(), unfinished: unfinished.clone(), is_parent_new };
        // A full disk is found now.
        if let Err(error) = fs::write(unfinished.join(RESULT), "\n") {
            place.clear();
            return Err(error);
        }
        Ok(place)
    }

    /// If another run is about to write there, this one's result goes beside it.
    fn file(path: &Path, is_special: bool) -> io::Result<Self> {
        if let Some(opened) = Self::file_at(path, is_special)? {
            return Ok(opened);
        }
        let mut name = path.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{}.json", std::process::id()));
        Self::file_at(&path.with_file_name(name), is_special)?.ok_or_else(|| io::ErrorKind::ResourceBusy.into())
    }

    /// Nothing if another process has it open.
    fn file_at(path: &Path, is_special: bool) -> io::Result<Option<Self>> {
        if !is_special && let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let part = (!is_special).then(|| {
            let mut name = OsString::from(path);
            name.push(".part");
            PathBuf::from(name)
        });
        let mut file =
            File::options().write(true).create(!is_special).truncate(false).open(part.as_deref().unwrap_or(path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Not every file system has locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // A full disk is found now.
        file.write_all(b"\n")?;
        Ok(Some(Self::File { path: path.to_owned(), file, part }))
    }

    fn save(&mut self, run_id: &str, result: &[u8], others: &[(&str, Vec<u8>)]) -> io::Result<()> {
        match self {
            Self::Folder { parent, unfinished, .. } => {
                for (name, contents) in
                    others.iter().map(|(name, contents)| (*name, &contents[..])).chain([(RESULT, result)])
                {
                    fs::write(unfinished.join(name), contents)?;
                }
                fs::rename(unfinished, parent.join(run_id))
            }
            Self::File { path, file, part } => {
                if part.is_some() {
                    file.set_len(0)?;
                    io::Seek::rewind(file)?;
                }
                file.write_all(result)?;
                part.as_ref().map_or(Ok(()), |part| fs::rename(part, path))
            }
        }
    }

    /// Removes what was made. Nobody can do anything about it if that fails.
    fn clear(&self) {
        match self {
            Self::Folder { parent, unfinished, is_parent_new } => {
                let _ = fs::remove_dir_all(unfinished);
                // Only if no other run is there by now.
                let _ = if *is_parent_new { fs::remove_dir(parent) } else { Ok(()) };
            }
            Self::File { part, .. } => part.iter().for_each(|part| {
                let _ = fs::remove_file(part);
            }),
        }
    }
}

/// A run that came to nothing leaves nothing.
impl Drop for Results {
    fn drop(&mut self) {
        if !self.is_saved {
            self.place.clear();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn open(path: &Path) -> Results {
        Results::open(Some(path), None).unwrap().unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_place_that_cannot_be_written_is_found_before_the_run() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let (below, beside) = (file.join("results"), file.join("results.json"));
        for bad in [&file, &below, &beside, Path::new("/dev/full"), Path::new("/proc/no/such/r.json")] {
            let reason = Results::open(Some(bad), None).unwrap_err();
            let expected = "expected a folder or a .json file that can be written, or off: ";
            assert!(reason.starts_with(&format!("RESULTS={}: {expected}", bad.display())), "{reason}");
        }
        assert!(Results::open(None, None).unwrap().is_none());
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn each_run_has_a_folder_of_its_own_once_it_is_whole() {
        let folder = TempDir::new().unwrap();
        let parent = folder.path().join("new/results");
        let (first, second) = (open(&parent), open(&parent));
        assert_eq!(first.folder("a"), Some(parent.join("a")));
        first.save("a", b"{}", &[("summary.txt", b"text".to_vec())]).unwrap();
        assert_eq!(names(&parent.join("a")), ["result.json", "summary.txt"]);
        assert_eq!(names(&parent).len(), 2, "the other is under way");
        assert!(open(&parent).save("a", b"{}", &[]).is_err(), "an id is used once");
        let again = Results::open(Some(&parent), Some("a")).unwrap_err();
        assert!(again.starts_with("RUN_ID=a: expected another name"), "{again}");
        assert!(Results::open(Some(&parent), Some("b")).unwrap().is_some());
        drop(second);
        assert_eq!(names(&parent), ["a"]);
    }

    #[test]
    fn a_run_that_came_to_nothing_leaves_nothing() {
        let folder = TempDir::new().unwrap();
        drop((open(&folder.path().join("new")), open(&folder.path().join("r.json"))));
        assert_eq!(names(folder.path()), [""; 0]);
        fs::create_dir(folder.path().join("old")).unwrap();
        drop(open(&folder.path().join("old")));
        assert_eq!(names(folder.path()), ["old"]);
    }

    #[test]
    fn two_runs_at_once_write_two_files() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("results.json");
        let (first, second) = (open(&path), open(&path));
        assert_ne!(first.path("a"), second.path("b"));
        first.save("a", b"{}", &[("summary.txt", b"text".to_vec())]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"{}");
        drop(second);
        assert_eq!(names(folder.path()), ["results.json"], "the result alone");
        let special = open(Path::new("/dev/null"));
        assert_eq!(special.path("a"), Path::new("/dev/null"));
        special.save("a", b"{}", &[]).unwrap();
    }
}
