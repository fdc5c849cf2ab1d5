use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// How many descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    // The directory that is being read is one of them.
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Bytes of memory that this process has in use.
pub(crate) fn resident() -> usize {
    resident_of("self")
}

/// The same of a process that is called so in `/proc`.
pub(crate) fn resident_of(process: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: usize = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// The kernel's ids of this process's threads of that name.
pub(crate) fn thread_ids(name: &str) -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let named = tasks
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name));
    named.map(|task| task.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// A directory that goes with its value.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("corelane-{}-{count}", std::process::id()));
        // One of an earlier process of this number, which was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
