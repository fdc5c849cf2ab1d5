//! Opening files below a directory and nowhere else.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// A pipe must not make us wait for its writer, nor a terminal become ours.
const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// A directory that stays the same one whatever becomes of its name.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
}

impl Root {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { directory: nix::fcntl::open(path, flags, Mode::empty())? })
    }

    /// Opens what `path` names, which is relative and of plain names only. A symbolic link that leads out of the
    /// directory leads nowhere.
    pub(super) fn find(&self, path: &Path) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        #[cfg(target_os = "linux")]
        match self.beneath(path) {
            // A kernel before 5.6, or a filter that does not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) => {}
            found => return Ok(found?.into()),
        }
        Ok(self.step_by_step(path)?.into())
    }

    /// The kernel itself sees to it that the way stays below (openat2(2)).
    #[cfg(target_os = "linux")]
    fn beneath(&self, path: &Path) -> nix::Result<OwnedFd> {
        use nix::fcntl::{OpenHow, ResolveFlag, openat2};
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(FLAGS).resolve(resolve);
        for _ in 0..3 {
            match openat2(&self.directory, path, how) {
                // Somebody renamed a directory on the way just now.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                found => return found,
            }
        }
        Err(Errno::ENOENT)
    }

    /// Where there is no such call, each name on the way is opened by itself, and no symbolic link is followed.
    fn step_by_step(&self, path: &Path) -> nix::Result<OwnedFd> {
        let mut names = path.components().peekable();
        let mut at: Option<OwnedFd> = None;
        while let Some(name) = names.next() {
            if !matches!(name, Component::Normal(_) | Component::CurDir) {
                return Err(Errno::ENOENT);
            }
            let on_the_way = if names.peek().is_some() { OFlag::O_DIRECTORY } else { OFlag::empty() };
            let flags = FLAGS | OFlag::O_NOFOLLOW | on_the_way;
            let next = openat(at.as_ref().unwrap_or(&self.directory), name.as_os_str(), flags, Mode::empty());
            at = Some(next?);
        }
        at.ok_or(Errno::ENOENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        /// `root` with files and links in it, and `secret` beside it.
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("corelane-root-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("root/inner")).unwrap();
            fs::write(path.join("secret"), "secret").unwrap();
            fs::write(path.join("root/file"), "file").unwrap();
            fs::write(path.join("root/inner/file"), "inner").unwrap();
            symlink("inner/file", path.join("root/within")).unwrap();
            symlink("inner", path.join("root/directory")).unwrap();
            symlink("../secret", path.join("root/out")).unwrap();
            symlink("..", path.join("root/inner/up")).unwrap();
            symlink("../..", path.join("root/inner/far")).unwrap();
            symlink(path.join("root/file"), path.join("root/absolute")).unwrap();
            symlink("loop", path.join("root/loop")).unwrap();
            Self(path)
        }

        fn root(&self) -> Root {
            Root::open(&self.0.join("root")).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn text(found: io::Result<File>) -> Option<String> {
        let mut text = String::new();
        found.ok()?.read_to_string(&mut text).ok()?;
        Some(text)
    }

    const OUTSIDE: [&str; 8] = [
        "out",
        "inner/far/secret",
        "absolute",
        "loop",
        "../secret",
        "/etc/passwd",
        "inner/../../secret",
        "nothing",
    ];

    #[test]
    fn links_within_the_root_are_followed_and_others_lead_nowhere() {
        let folder = Folder::new("links");
        let root = folder.root();
        for path in ["file", "inner/up/file"] {
            assert_eq!(text(root.find(Path::new(path))).as_deref(), Some("file"), "{path}");
        }
        for path in ["inner/file", "within", "directory/file"] {
            assert_eq!(text(root.find(Path::new(path))).as_deref(), Some("inner"), "{path}");
        }
        for path in OUTSIDE {
            assert!(root.find(Path::new(path)).is_err(), "{path}");
        }
        assert!(root.find(Path::new("")).unwrap().metadata().unwrap().is_dir());
    }

    #[test]
    fn without_help_of_the_kernel_no_link_is_followed() {
        let folder = Folder::new("steps");
        let root = folder.root();
        let find = |path: &str| root.step_by_step(Path::new(path)).map(File::from).map_err(io::Error::from);
        assert_eq!(text(find("file")).as_deref(), Some("file"));
        assert_eq!(text(find("inner/file")).as_deref(), Some("inner"));
        for path in OUTSIDE.into_iter().chain(["within", "directory/file", "inner/up/file"]) {
            assert!(find(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_root_that_is_renamed_stays_the_root() {
        let folder = Folder::new("renamed");
        let root = folder.root();
        fs::rename(folder.0.join("root"), folder.0.join("moved")).unwrap();
        assert_eq!(text(root.find(Path::new("file"))).as_deref(), Some("file"));
    }
}
