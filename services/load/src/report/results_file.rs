//! RESULTS: found to be writable before the run, and written in one step after it.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

use super::Report;

/// A place for results that this process can write, and no other run writes meanwhile.
#[derive(Debug)]
pub struct ResultsFile {
    path: PathBuf,
    file: File,
    /// Beside the place, until the results are whole; nothing if the place is no regular file.
    part: Option<PathBuf>,
}

impl ResultsFile {
    /// Opens the place that RESULTS names; nothing if it names none. If another run is about to write there, this one's results
    /// go beside it.
    ///
    /// # Errors
    /// One line: the variable, its value and why it cannot be written.
    pub fn open(setting: Option<&Path>) -> Result<Option<Self>, String> {
        let Some(path) = setting else { return Ok(None) };
        let opened = Self::open_at(path).and_then(|opened| opened.map_or_else(|| Self::open_beside(path), Ok));
        let what = "expected a file that can be written, or off";
        opened.map(Some).map_err(|error| format!("RESULTS={}: {what}: {error}", path.display()))
    }

    /// Where they will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_beside(path: &Path) -> io::Result<Self> {
        let mut name = path.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{}", std::process::id()));
        if let Some(extension) = path.extension() {
            name.push(".");
            name.push(extension);
        }
        Self::open_at(&path.with_file_name(name))?.ok_or_else(|| io::ErrorKind::ResourceBusy.into())
    }

    /// Nothing if another process has it open.
    fn open_at(path: &Path) -> io::Result<Option<Self>> {
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        if !is_special && let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let part = (!is_special).then(|| {
            let mut name = OsString::from(path);
            name.push(".part");
            PathBuf::from(name)
        });
        let place = part.as_deref().unwrap_or(path);
        let mut file = File::options().write(true).create(!is_special).truncate(false).open(place)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // Not every file system has locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // A full disk is found now.
        file.write_all(b"\n")?;
        Ok(Some(Self { path: path.to_owned(), file, part }))
    }

    /// Writes the results.
    ///
    /// # Errors
    /// One line, if they cannot be written.
    pub fn save(mut self, report: &Report) -> Result<(), String> {
        let saved = self.write(report);
        saved.map_err(|error| format!("RESULTS={}: cannot write it: {error}", self.path.display()))
    }

    fn write(&mut self, report: &Report) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(report)?;
        if self.part.is_some() {
            self.file.set_len(0)?;
            self.file.rewind()?;
        }
        self.file.write_all(&text)?;
        if let Some(shard) = report.shard() {
            fs::write(self.path.with_extension("shard"), shard)?;
        }
        self.part.take().map_or(Ok(()), |part| fs::rename(part, &self.path))
    }
}

/// A run that came to nothing leaves nothing.
impl Drop for ResultsFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let _ = fs::remove_file(part);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_written_is_found_before_the_run() {
        let folder = std::env::temp_dir().join(format!("results-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        fs::write(at("file"), "").unwrap();
        for bad in [at("file/results.json"), at(""), "/dev/full".to_owned(), "/proc/no/such/r.json".to_owned()] {
            let reason = ResultsFile::open(Some(Path::new(&bad))).unwrap_err();
            assert!(reason.starts_with(&format!("RESULTS={bad}: expected a file that can be written")), "{reason}");
        }
        assert!(ResultsFile::open(None).unwrap().is_none());
        let first = ResultsFile::open(Some(Path::new(&at("new/results.json")))).unwrap().unwrap();
        let second = ResultsFile::open(Some(Path::new(&at("new/results.json")))).unwrap().unwrap();
        assert_ne!(first.path(), second.path(), "two runs at once");
        drop((first, second));
        assert_eq!(fs::read_dir(at("new")).unwrap().count(), 0, "nothing is left of runs that came to nothing");
        fs::remove_dir_all(&folder).unwrap();
    }
}
