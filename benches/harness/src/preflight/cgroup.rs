//! Limits that the control groups of this process set, those above it included.

use std::fs;
use std::path::{Path, PathBuf};

/// A limit, and how much of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounded {
    pub(crate) limit: u64,
    pub(crate) used: u64,
}

impl Bounded {
    pub(crate) fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// Version 1 says "no limit" with the largest multiple of a page that a signed number holds.
const UNLIMITED: u64 = 1 << 62;

/// The files of one controller.
struct Controller {
    name: &'static str,
    /// Limit and use in version 2.
    unified: [&'static str; 2],
    /// The same in version 1.
    legacy: [&'static str; 2],
}

const MEMORY: Controller = Controller {
    name: "memory",
    unified: ["memory.max", "memory.current"],
    legacy: ["memory.limit_in_bytes", "memory.usage_in_bytes"],
};

const PIDS: Controller =
    Controller { name: "pids", unified: ["pids.max", "pids.current"], legacy: ["pids.max", "pids.current"] };

/// The memory that the groups leave, in bytes; `None` where none sets a limit.
pub(super) fn memory(root: &Path) -> Option<Bounded> {
    tightest(root, &MEMORY)
}

/// The processes and threads that the groups leave.
pub(super) fn pids(root: &Path) -> Option<Bounded> {
    tightest(root, &PIDS)
}

fn tightest(root: &Path, controller: &Controller) -> Option<Bounded> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounted = root.join("sys/fs/cgroup");
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            for base in [mounted.clone(), mounted.join("unified")] {
                found.extend(upwards(&base, path).filter_map(|group| read(&group, controller.unified)));
            }
        } else if controllers.split(',').any(|name| name == controller.name) {
            let base = mounted.join(controller.name);
            found.extend(upwards(&base, path).filter_map(|group| read(&group, controller.legacy)));
        }
    }
    found.into_iter().min_by_key(|bounded| bounded.left())
}

/// The group and all above it. A container sees its own group as the root: then only that is there.
fn upwards(base: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let relative = Path::new(path.trim_start_matches('/')).to_owned();
    let base = base.to_owned();
    let groups: Vec<_> = relative.ancestors().map(|group| base.join(group)).collect();
    groups.into_iter()
}

fn read(group: &Path, [limit, used]: [&str; 2]) -> Option<Bounded> {
    let number = |name| -> Option<u64> { fs::read_to_string(group.join(name)).ok()?.trim().parse().ok() };
    // `max`, no limit, is no number.
    let limit = number(limit).filter(|&limit| limit < UNLIMITED)?;
    Some(Bounded { limit, used: number(used).unwrap_or(0) })
}
