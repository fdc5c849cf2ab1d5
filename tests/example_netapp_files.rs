//! Static files over HTTP: names, conditions and ranges with curl, byte for byte, and no way out of the directory.
#![cfg(feature = "http1")]

mod support;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use corelane::Address;
use support::{Client, End, Example, Random, TempDir};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

/// A directory that is served, and beside it one that is not.
struct Site {
    folder: TempDir,
    example: Example,
    address: SocketAddr,
    bytes: Vec<u8>,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new();
        let root = folder.join("root");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        let bytes = Random::new(9).bytes(3_000_000);
        fs::write(root.join("large.bin"), &bytes).unwrap();
        fs::write(root.join("small.txt"), "0123456789").unwrap();
        fs::write(root.join("empty.css"), "").unwrap();
        fs::write(root.join("sub/index.html"), "<p>index</p>").unwrap();
        fs::write(root.join("sub/a name.json"), "{}").unwrap();
        fs::write(root.join(".hidden"), "hidden").unwrap();
        fs::write(folder.join("secret"), "secret").unwrap();
        symlink("../secret", root.join("out.txt")).unwrap();
        symlink("small.txt", root.join("in.txt")).unwrap();
        symlink("/", root.join("sub/slash")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Its name stays when it is closed.
        UnixListener::bind(root.join("socket")).unwrap();
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for name in ["large.bin", "small.txt", "empty.css"] {
            File::options().write(true).open(root.join(name)).unwrap().set_modified(date).unwrap();
        }
        let (example, address) =
            Example::serve("netapp", &["--reactors", "1", "--files", root.to_str().unwrap()]);
        Self { folder, example, address, bytes }
    }

    /// How many descriptors the server has open.
    fn descriptors(&self) -> usize {
        fs::read_dir(Path::new("/proc").join(self.example.id().to_string()).join("fd")).unwrap().count()
    }

    /// Status, head in lower case, and body, as curl sees them.
    #[track_caller]
    fn get(&self, path: &str, options: &[&str]) -> (u16, String, Vec<u8>) {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--path-as-is", "--max-time", "30"])
            .args(options)
            .arg(format!("http://{}/files/{path}", self.address))
            .output()
            .expect("curl is installed");
        assert!(output.status.success(), "{path} {options:?}: {output:?}");
        let output = output.stdout;
        let end = output.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(output[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, output[end..].to_vec())
    }

    /// The status of a request with these headers.
    #[track_caller]
    fn status(&self, path: &str, headers: &[&str]) -> u16 {
        let options: Vec<&str> = headers.iter().flat_map(|header| ["--header", header]).collect();
        self.get(path, &options).0
    }

    fn tag(&self, path: &str) -> String {
        header(&self.get(path, &[]).1, "etag").unwrap().to_owned()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn files_are_what_they_are_on_disk() {
    let site = Site::new();
    for (path, body, content_type) in [
        ("small.txt", &b"0123456789"[..], "text/plain; charset=utf-8"),
        ("in.txt", b"0123456789", "text/plain; charset=utf-8"),
        ("large.bin", &site.bytes, "application/octet-stream"),
        ("empty.css", b"", "text/css; charset=utf-8"),
        ("sub/", b"<p>index</p>", "text/html; charset=utf-8"),
        ("sub/index.html?v=1", b"<p>index</p>", "text/html; charset=utf-8"),
        ("sub/a%20name.json", b"{}", "application/json"),
        ("%73ub/index.html", b"<p>index</p>", "text/html; charset=utf-8"),
    ] {
        let (status, head, came) = site.get(path, &[]);
        assert!(status == 200 && came == body, "{path}: {head}");
        assert_eq!(header(&head, "content-type"), Some(content_type), "{path}");
        assert_eq!(header(&head, "content-length"), Some(body.len().to_string().as_str()), "{path}");
        assert_eq!(header(&head, "accept-ranges"), Some("bytes"), "{path}");
        let (status, of_head, came) = site.get(path, &["--head"]);
        assert!(status == 200 && came.is_empty(), "{path}");
        for name in ["content-type", "content-length", "etag", "last-modified"] {
            assert_eq!(header(&of_head, name), header(&head, name), "{path}: {name} of a HEAD");
        }
    }
    assert_eq!(header(&site.get("small.txt", &[]).1, "last-modified"), Some(DATE.to_lowercase().as_str()));
    let (status, head, _) = site.get("sub?v=1", &[]);
    assert_eq!((status, header(&head, "location")), (301, Some("./sub/?v=1")));
    let (status, _, body) = site.get("sub", &["--location"]);
    assert!(status == 301 && body.ends_with(b"<p>index</p>"), "curl follows it");
    let (status, head, _) = site.get("small.txt", &["--data", "x"]);
    assert_eq!((status, header(&head, "allow")), (405, Some("get, head")));
    site.example.stop();
}

#[test]
fn nothing_else_can_be_had() {
    let site = Site::new();
    for path in [
        "nothing",
        "sub/deep/",
        "",
        "small.txt/",
        "small.txt/x",
        "pipe",
        "socket",
        "out.txt",
        ".hidden",
        "sub/.",
        "sub/..",
        "..",
        "../",
        "../secret",
        "../../secret",
        "sub/../small.txt",
        "sub/../../secret",
        "%2e%2e/secret",
        "%2e%2e%2fsecret",
        "..%2fsecret",
        ".%2e/secret",
        "sub/%2e%2e/%2e%2e/secret",
        "..%5csecret",
        "..\\secret",
        "%00",
        "small.txt%00",
        "small.txt%00.png",
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc/passwd",
        "sub/slash/etc/passwd",
        "sub//index.html",
        "%",
        "%2",
        "%zz",
        "%c0%ae%c0%ae/secret",
    ] {
        let (status, head, body) = site.get(path, &[]);
        assert_eq!(status, 404, "{path}: {head}");
        assert!(!body.windows(6).any(|window| window == b"secret"), "{path}");
    }
    // The directory itself may be absolute, renamed, or gone: it is the same one.
    fs::rename(site.folder.join("root"), site.folder.join("moved")).unwrap();
    assert_eq!(site.get("small.txt", &[]).0, 200);
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        let path = site.folder.join("moved/small.txt");
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(site.get("small.txt", &[]).0, 403);
    }
    site.example.stop();
}

#[test]
fn conditions_are_met() {
    let site = Site::new();
    let tag = site.tag("small.txt");
    let with = |name: &str, value: &str| format!("{name}: {value}");
    for (headers, status) in [
        (vec![with("if-none-match", &tag)], 304),
        (vec![with("if-none-match", &format!("W/{tag}"))], 304),
        (vec![with("if-none-match", &format!("\"x\", {tag}"))], 304),
        (vec![with("if-none-match", "*")], 304),
        (vec![with("if-none-match", "\"x\"")], 200),
        (vec![with("if-modified-since", DATE)], 304),
        (vec![with("if-modified-since", AFTER)], 304),
        (vec![with("if-modified-since", BEFORE)], 200),
        (vec![with("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], 304),
        (vec![with("if-modified-since", "nonsense")], 200),
        (vec![with("if-none-match", "\"x\""), with("if-modified-since", AFTER)], 200),
        (vec![with("if-match", &tag)], 200),
        (vec![with("if-match", "*")], 200),
        (vec![with("if-match", "\"x\"")], 412),
        (vec![with("if-match", &format!("W/{tag}"))], 412),
        (vec![with("if-unmodified-since", DATE)], 200),
        (vec![with("if-unmodified-since", BEFORE)], 412),
        (vec![with("if-match", &tag), with("if-unmodified-since", BEFORE)], 200),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        assert_eq!(site.status("small.txt", &headers), status, "{headers:?}");
    }
    let none_match = with("if-none-match", &tag);
    let (status, head, body) = site.get("small.txt", &["--header", &none_match]);
    assert!(status == 304 && body.is_empty(), "{head}");
    assert_eq!(header(&head, "etag"), Some(tag.as_str()));
    assert_eq!(header(&head, "content-length"), None);
    // As curl itself does it, for those who come again.
    let (kept, came) = (site.folder.join("kept"), site.folder.join("came"));
    let options = |save: &str| {
        vec![
            "--etag-save".to_owned(),
            save.to_owned(),
            "--etag-compare".into(),
            kept.to_str().unwrap().into(),
        ]
    };
    fs::write(&kept, "").unwrap();
    let first = options(kept.to_str().unwrap());
    assert_eq!(site.get("small.txt", &first.iter().map(String::as_str).collect::<Vec<_>>()).0, 200);
    let second = options(came.to_str().unwrap());
    assert_eq!(site.get("small.txt", &second.iter().map(String::as_str).collect::<Vec<_>>()).0, 304);
    // A new version has another tag.
    fs::write(site.folder.join("root/small.txt"), "9876543210").unwrap();
    assert_ne!(site.tag("small.txt"), tag);
    assert_eq!(site.status("small.txt", &[&none_match]), 200);
    site.example.stop();
}

/// A file of this time of modification, as far as the file system knows it.
fn touch(path: &Path, time: SystemTime) {
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn files_of_every_time_can_be_had() {
    let site = Site::new();
    let path = site.folder.join("root/odd.txt");
    fs::write(&path, "0123456789").unwrap();
    let epoch = SystemTime::UNIX_EPOCH;
    let second = Duration::from_secs(1);
    let tags: Vec<String> = [epoch - 86_400 * second, epoch - 1_000 * second, epoch, epoch + second]
        .into_iter()
        .map(|time| {
            touch(&path, time);
            for options in [&[][..], &["--head"], &["--range", "0-3"]] {
                let (status, head, _) = site.get("odd.txt", options);
                assert!([200, 206].contains(&status), "{time:?}: {head}");
                let said =
                    httpdate::parse_http_date(&title(header(&head, "last-modified").unwrap())).unwrap();
                assert_eq!(said, time.max(epoch));
            }
            site.tag("odd.txt")
        })
        .collect();
    let distinct: std::collections::BTreeSet<&String> = tags.iter().collect();
    assert_eq!(distinct.len(), tags.len(), "{tags:?}");
    // The last is in the year 12,000, where the file system knows it.
    for ahead in [3_600 * second, 86_400 * second, Duration::from_secs(315_000_000_000)] {
        touch(&path, SystemTime::now() + ahead);
        for options in [&[][..], &["--head"]] {
            let (status, head, _) = site.get("odd.txt", options);
            assert_eq!(status, 200, "{head}");
            assert_eq!(header(&head, "last-modified"), header(&head, "date"), "{ahead:?} ahead");
        }
        assert_eq!(site.status("odd.txt", &[&format!("if-modified-since: {DATE}")]), 200);
        assert_eq!(site.status("odd.txt", &[&format!("if-unmodified-since: {DATE}")]), 412);
    }
    site.example.stop();
}

/// A date in lower case as it was.
fn title(date: &str) -> String {
    let words = date.split(' ').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.collect::<Vec<_>>().join(" ").replace("Gmt", "GMT")
}

#[test]
fn ranges_are_cut_out() {
    let site = Site::new();
    for (range, content_range, part) in [
        ("0-0", "bytes 0-0/3000000", 0..1),
        ("5-9", "bytes 5-9/3000000", 5..10),
        ("2999990-", "bytes 2999990-2999999/3000000", 2_999_990..3_000_000),
        ("-7", "bytes 2999993-2999999/3000000", 2_999_993..3_000_000),
        ("1000000-9999999", "bytes 1000000-2999999/3000000", 1_000_000..3_000_000),
        ("-9999999", "bytes 0-2999999/3000000", 0..3_000_000),
    ] {
        let (status, head, body) = site.get("large.bin", &["--range", range]);
        assert!(status == 206 && body == site.bytes[part.clone()], "{range}: {head}");
        assert_eq!(header(&head, "content-range"), Some(content_range));
        assert_eq!(header(&head, "content-length"), Some(part.len().to_string().as_str()));
    }
    for (path, range) in
        [("small.txt", "10-"), ("small.txt", "-0"), ("empty.css", "0-"), ("small.txt", "99-100")]
    {
        let (status, head, _) = site.get(path, &["--range", range]);
        assert_eq!(status, 416, "{range}");
        let length = if path == "small.txt" { 10 } else { 0 };
        assert_eq!(header(&head, "content-range"), Some(format!("bytes */{length}").as_str()));
    }
    // Whoever asks for several, or for nonsense, gets the whole.
    for range in ["bytes=0-1,4-5", "bytes=5-1", "bytes=a-b", "lines=1-2", "bytes="] {
        let (status, _, body) = site.get("small.txt", &["--header", &format!("range: {range}")]);
        assert_eq!((status, body.as_slice()), (200, &b"0123456789"[..]), "{range}");
    }
    let tag = site.tag("small.txt");
    for (version, status) in [(tag.as_str(), 206), (DATE, 206), ("\"x\"", 200), (BEFORE, 200), (AFTER, 200)] {
        let headers = ["range: bytes=2-3".to_owned(), format!("if-range: {version}")];
        assert_eq!(site.status("small.txt", &[&headers[0], &headers[1]]), status, "{version}");
    }
    assert_eq!(site.get("small.txt", &["--head", "--range", "2-3"]).0, 200, "a range is for GET");
    // curl goes on where a download broke off.
    let part = site.folder.join("part");
    fs::write(&part, &site.bytes[..1_234_567]).unwrap();
    let done = Command::new("curl")
        .args(["--silent", "--max-time", "30", "--continue-at", "-", "--output", part.to_str().unwrap()])
        .arg(format!("http://{}/files/large.bin", site.address))
        .status()
        .unwrap();
    assert!(done.success() && fs::read(&part).unwrap() == site.bytes);
    site.example.stop();
}

#[test]
fn pipelined_files_come_in_their_order_behind_replies_that_take_long() {
    let site = Site::new();
    let mut client = Client::connect(&Address::Tcp(site.address));
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let requests = [
        get("/slow?ms=50", ""),
        get("/files/large.bin", ""),
        get("/files/small.txt", "Range: bytes=2-4\r\n"),
        get("/plaintext", ""),
        get("/files/nothing", ""),
        get("/slow?ms=10", ""),
        get("/files/large.bin", "Range: bytes=-100000\r\n"),
        get("/files/empty.css", "Connection: close\r\n"),
    ];
    client.send(requests.concat().as_bytes());
    let all = client.receive_all();
    drop(client);
    let mut rest = &all[..];
    let mut next = || {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8(rest[..end].to_vec()).unwrap().to_lowercase();
        let length: usize = header(&head, "content-length").unwrap().parse().unwrap();
        let body = rest[end..end + length].to_vec();
        rest = &rest[end + length..];
        body
    };
    assert_eq!(next(), b"waited 50 ms\n");
    assert!(next() == site.bytes);
    assert_eq!(next(), b"234");
    assert_eq!(next(), b"Hello, World!");
    assert_eq!(next(), b"Not Found\n");
    assert_eq!(next(), b"waited 10 ms\n");
    assert!(next() == site.bytes[2_900_000..]);
    assert_eq!(next(), b"");
    assert!(rest.is_empty());
    site.example.stop();
}

#[test]
fn a_file_that_gets_shorter_is_never_taken_for_whole() {
    let site = Site::new();
    let path = site.folder.join("root/shrinking");
    fs::write(&path, vec![7; 20_000_000]).unwrap();
    let mut client = Client::connect_narrow(&Address::Tcp(site.address));
    client.send(b"GET /files/shrinking HTTP/1.1\r\nHost: a\r\n\r\n");
    client.receive(1000);
    File::options().write(true).open(&path).unwrap().set_len(1_000_000).unwrap();
    let (rest, end) = client.receive_rest();
    assert!(end == End::Reset && rest.len() < 19_000_000);
    let output = site.example.stop();
    assert!(output.iter().any(|line| line.contains("file_truncated 1")), "{output:#?}");
}

/// However many files a client asks for, few are open for it while it takes none of them.
#[test]
fn a_client_that_does_not_read_holds_few_files_open() {
    let site = Site::new();
    let mut client = Client::connect_narrow(&Address::Tcp(site.address));
    let before = site.descriptors();
    client.send("GET /files/large.bin HTTP/1.1\r\nHost: a\r\n\r\n".repeat(300).as_bytes());
    client.receive(1000);
    // Whoever comes behind it is answered when it has been served as far as it is.
    for _ in 0..3 {
        assert_eq!(site.status("small.txt", &[]), 200);
    }
    let files = site.descriptors() - before;
    assert!((1..20).contains(&files), "{files} are open");
    client.reset();
    site.example.stop();
}

#[test]
fn no_descriptor_is_left_behind() {
    let site = Site::new();
    let open = || site.descriptors();
    // Nobody has connected yet: a connection that is still closing must not be counted as one that stays.
    let before = open();
    for _ in 0..20 {
        for path in ["small.txt", "large.bin", "sub", "nothing", "pipe", "sub/"] {
            site.get(path, &[]);
            site.get(path, &["--head"]);
        }
        // One that goes away in the middle.
        let mut client = Client::connect(&Address::Tcp(site.address));
        client.send(b"GET /files/large.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        client.receive(100);
        drop(client);
    }
    support::eventually("the files to be closed", || open() == before);
    site.example.stop();
}
