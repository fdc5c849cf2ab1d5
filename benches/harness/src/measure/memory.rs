//! How much memory processes and the kernel have in use.

use std::fs;

use anyhow::{Context, Result};

use crate::result::MemoryPoint;

/// The memory of a server of these processes while it has so many connections: its own, and what the kernel has in use
/// for whomever, apart.
pub(crate) fn point(pids: impl IntoIterator<Item = u32>, connections: u64) -> Result<MemoryPoint> {
    let sizes = pids.into_iter().map(sizes).collect::<Result<Vec<_>>>()?;
    Ok(MemoryPoint {
        connections,
        user_bytes: sizes.iter().map(|sizes| sizes.pss).sum(),
        resident_bytes: Some(sizes.iter().map(|sizes| sizes.rss).sum()),
        kernel_bytes: slab(),
        buffer_bytes: tcp_buffers(),
    })
}

/// The memory of a process in bytes (proc_pid_smaps(5)): what it has allocated itself, not what the kernel keeps for its
/// sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// What it shares with others counted in part.
    pub(crate) pss: u64,
    /// What it shares with others counted in full.
    pub(crate) rss: u64,
}

/// Both sizes of a process.
pub(crate) fn sizes(pid: u32) -> Result<Sizes> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let bytes = |name: &str| {
        let kib = kib(&text, name).with_context(|| format!("no `{name}` in {path}"))?;
        Ok::<_, anyhow::Error>(kib * 1024)
    };
    Ok(Sizes { pss: bytes("Pss:")?, rss: bytes("Rss:")? })
}

/// The memory in bytes that the kernel keeps in its caches of objects, of whomever: sockets, files, epoll's entries.
/// `None` if it does not tell.
///
/// Pages of buffers with data under way are not among it: an idle connection has none.
pub(crate) fn slab() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some(kib(&text, "Slab:")? * 1024)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// One of the kernel's caches, and the bytes of its objects in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cache {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Each of the kernel's caches; `None` where only root may read `/proc/slabinfo`.
pub(crate) fn caches() -> Option<Vec<Cache>> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    Some(text.lines().filter_map(cache).collect())
}

/// A line of `/proc/slabinfo`: name, objects in use, objects, bytes of each (slabinfo(5)).
fn cache(line: &str) -> Option<Cache> {
    let mut words = line.split_whitespace();
    let name = words.next()?.to_owned();
    let in_use: u64 = words.next()?.parse().ok()?;
    let size: u64 = words.nth(1)?.parse().ok()?;
    Some(Cache { name, bytes: in_use * size })
}

/// The caches that have grown most, with by how many bytes, at most `most` of them.
pub(crate) fn grown(before: &[Cache], after: &[Cache], most: usize) -> Vec<Cache> {
    let was = |name: &str| before.iter().find(|cache| cache.name == name).map_or(0, |cache| cache.bytes);
    let growth = |cache: &Cache| {
        Some(Cache { name: cache.name.clone(), bytes: cache.bytes.checked_sub(was(&cache.name))? })
    };
    let mut grown: Vec<_> = after.iter().filter_map(growth).filter(|cache| cache.bytes > 0).collect();
    grown.sort_by_key(|cache| std::cmp::Reverse(cache.bytes));
    grown.truncate(most);
    grown
}

/// Pages of TCP's buffers that are in use in this network namespace (`mem` in `/proc/net/sockstat`).
pub(crate) fn tcp_pages() -> Option<u64> {
    tcp_pages_in(&fs::read_to_string("/proc/net/sockstat").ok()?)
}

/// Bytes of TCP's buffers that are in use in this network namespace.
pub(crate) fn tcp_buffers() -> Option<u64> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(tcp_pages()? * u64::try_from(page).ok()?)
}

fn tcp_pages_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem").skip(1);
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proportional_set_size_is_found() {
        let text = "5588-7ffc ---p 00000000 00:00 0    [rollup]\nRss:                1756 kB\n\
                    Pss:                 239 kB\nPss_Dirty:           112 kB\n";
        assert_eq!(kib(text, "Pss:"), Some(239));
        assert_eq!(kib("Rss: 1 kB\nPss_Anon: 2 kB\n", "Pss:"), None);
    }

    #[test]
    fn what_this_process_touches_is_resident() {
        let pid = std::process::id();
        let before = sizes(pid).unwrap().pss;
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let sizes = sizes(pid).unwrap();
        assert!(sizes.pss >= before + (32 << 20));
        assert!(sizes.rss >= sizes.pss, "{sizes:?}");
        drop(block);
    }

    #[test]
    fn caches_are_read_and_compared() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
                    TCP   10 12 2368 13 8 : tunables 0 0 0 : slabdata 1 1 0\n\
                    filp   7 20 192 21 1 : tunables 0 0 0 : slabdata 1 1 0\n";
        let after: Vec<_> = text.lines().filter_map(cache).collect();
        let sizes: Vec<_> = after.iter().map(|cache| (cache.name.as_str(), cache.bytes)).collect();
        assert_eq!(sizes, [("TCP", 23_680), ("filp", 1_344)]);
        let before = [Cache { name: "filp".to_owned(), bytes: 1_344 }];
        assert_eq!(grown(&before, &after, 5), [after[0].clone()]);
    }

    #[test]
    fn pages_of_buffers_are_found() {
        let text = "sockets: used 15\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 42\nUDP: inuse 0 mem 7\n";
        assert_eq!(tcp_pages_in(text), Some(42));
        assert!(tcp_pages().is_some() && slab().unwrap() > 0);
    }
}
