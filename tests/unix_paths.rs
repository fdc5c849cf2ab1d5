//! Unix sockets by path and by name: what is bound, what is replaced, what is left alone, what is removed.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use corelane::{Address, Server, StartError};
use support::{Client, Script, TempDir, TestServer, alone, wait_for_nobody_at};

fn at(path: &Path) -> Server {
    Server::new().listen(path).reactors(1)
}

#[track_caller]
fn refused(path: &Path) {
    match TestServer::try_start(at(path), Script::echo()) {
        Err(StartError::Listen { address, error }) => {
            assert_eq!(address, Address::Unix(path.to_owned()));
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it listens"),
    }
}

#[test]
fn an_absolute_path_is_served_and_removed_at_the_end() {
    let directory = TempDir::new();
    let path = directory.join("socket");
    let mut server = TestServer::configured(at(&path), Script::echo());
    assert_eq!(server.address(), &Address::Unix(path.clone()));
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    server.client().echo(b"hello");
    server.stop();
    assert!(!path.exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_relative_path_is_removed_even_if_the_directory_has_changed() {
    alone("a_relative_path_is_removed_even_if_the_directory_has_changed", || {
        let (directory, elsewhere) = (TempDir::new(), TempDir::new());
        std::env::set_current_dir(directory.path()).unwrap();
        let server = Server::new().listen("unix:relative.sock").reactors(1);
        let mut server = TestServer::configured(server, Script::echo());
        assert_eq!(server.address().to_string(), "unix:relative.sock");
        server.client().echo(b"hello");
        std::env::set_current_dir(elsewhere.path()).unwrap();
        Client::connect(&Address::Unix(directory.join("relative.sock"))).echo(b"hello");
        // A namesake here is none of the server's business.
        fs::write("relative.sock", "mine").unwrap();
        server.stop();
        assert!(!directory.join("relative.sock").exists());
        assert_eq!(fs::read("relative.sock").unwrap(), b"mine");
    });
}

#[test]
fn an_abstract_name_is_served_and_leaves_no_file() {
    let directory = TempDir::new();
    let name = format!("corelane{}", directory.path().display());
    let mut server =
        TestServer::configured(Server::new().listen(&format!("unix:@{name}")).reactors(2), Script::echo());
    assert_eq!(server.address(), &Address::Abstract(name.clone().into_bytes()));
    for _ in 0..4 {
        server.client().echo(b"hello");
    }
    // The name is taken until the end, and free after it.
    let again = || Server::new().listen(&format!("unix:@{name}")).reactors(1);
    match TestServer::try_start(again(), Script::echo()) {
        Err(StartError::Listen { error, .. }) => assert_eq!(error.kind(), ErrorKind::AddrInUse),
        other => panic!("{other:?}"),
    }
    server.stop();
    wait_for_nobody_at(server.address());
    TestServer::configured(again(), Script::echo()).client().echo(b"hello");
    assert!(!Path::new(&name).exists() && !Path::new(&format!("@{name}")).exists());
}

#[test]
fn a_path_may_be_as_long_as_the_kernel_takes_and_no_longer() {
    let directory = TempDir::new();
    let room = 107 - directory.path().as_os_str().len() - 1;
    let longest = directory.join(&"x".repeat(room));
    assert_eq!(longest.as_os_str().len(), 107);
    TestServer::configured(at(&longest), Script::echo()).client().echo(b"hello");

    let too_long = directory.join(&"x".repeat(room + 1));
    match TestServer::try_start(at(&too_long), Script::echo()) {
        Err(StartError::Address(error)) => {
            let text = error.to_string();
            assert!(text.contains("too long") && text.contains(&*too_long.to_string_lossy()), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        0,
        "nothing was bound under a shortened name"
    );

    let name = "n".repeat(107);
    let server = Server::new().listen(Address::Abstract(name.clone().into_bytes())).reactors(1);
    TestServer::configured(server, Script::echo()).client().echo(b"hello");
    assert!(format!("unix:@{name}n").parse::<Address>().unwrap_err().to_string().contains("too long"));
}

#[test]
fn texts_that_name_no_socket_are_refused() {
    for text in
        ["unix:", "unix:@", "unix:a\0b", "/run/service.sock", "tcp:127.0.0.1:1", "127.0.0.1", "localhost:80"]
    {
        let error = text.parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("expected IPV4:PORT, [IPV6]:PORT, unix:/path or unix:@name"), "{error}");
        assert!(Server::new().listen(text).reactors(1).start(|_| Never).is_err());
    }
    for text in ["127.0.0.1:80", "[::1]:80", "unix:/run/a b", "unix:relative", "unix:@name"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
    }
    // Paths need not be UTF-8.
    let directory = TempDir::new();
    let path = directory.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    TestServer::configured(at(&path), Script::echo()).client().echo(b"hello");
}

struct Never;

impl corelane::Handler for Never {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut corelane::Conn<'_>) -> corelane::Open<()> {
        corelane::Open::Refuse
    }

    fn on_data(
        &mut self,
        _: &mut corelane::Conn<'_>,
        (): &mut (),
        _: &mut corelane::Input<'_>,
    ) -> corelane::Flow {
        corelane::Flow::Close
    }
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = TempDir::new();
    let path = directory.join("socket");
    // As a server leaves it that was killed.
    drop(UnixListener::bind(&path).unwrap());
    wait_for_nobody_at(&Address::Unix(path.clone()));
    assert!(path.exists());
    let server = TestServer::configured(at(&path), Script::echo());
    server.client().echo(b"hello");
}

#[test]
fn what_is_not_a_stale_socket_is_left_alone() {
    let directory = TempDir::new();

    let file = directory.join("file");
    fs::write(&file, "precious").unwrap();
    refused(&file);
    assert_eq!(fs::read(&file).unwrap(), b"precious");

    let empty = directory.join("directory");
    fs::create_dir(&empty).unwrap();
    refused(&empty);
    let full = directory.join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("inside"), "precious").unwrap();
    refused(&full);
    assert!(empty.is_dir());
    assert_eq!(fs::read(full.join("inside")).unwrap(), b"precious");

    let link = directory.join("link");
    symlink(&file, &link).unwrap();
    refused(&link);
    let dangling = directory.join("dangling");
    symlink(directory.join("nowhere"), &dangling).unwrap();
    refused(&dangling);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::symlink_metadata(&dangling).unwrap().is_symlink());

    // Sockets of others, of whatever kind and however busy.
    let busy = directory.join("busy");
    let others = UnixListener::bind(&busy).unwrap();
    refused(&busy);
    let mut queued = Vec::new();
    let full_queue = directory.join("full queue");
    let narrow = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    narrow.bind(&socket2::SockAddr::unix(&full_queue).unwrap()).unwrap();
    narrow.listen(0).unwrap();
    queued.push(UnixStream::connect(&full_queue).unwrap());
    refused(&full_queue);
    let datagrams = directory.join("datagrams");
    let _datagrams = UnixDatagram::bind(&datagrams).unwrap();
    refused(&datagrams);
    for path in [&busy, &full_queue, &datagrams] {
        assert!(fs::symlink_metadata(path).unwrap().file_type().is_socket());
    }
    let _client = UnixStream::connect(&busy).unwrap();
    others.set_nonblocking(true).unwrap();
    // The probe of the server, then ours.
    assert!(others.accept().is_ok());
}

#[test]
fn a_path_that_is_somebody_elses_by_now_is_not_removed() {
    let directory = TempDir::new();
    let path: PathBuf = directory.join("socket");
    let mut old = TestServer::configured(at(&path), Script::echo());
    // Somebody removes it, and another server binds the path.
    fs::remove_file(&path).unwrap();
    let new = TestServer::configured(at(&path), Script::echo());
    old.stop();
    assert!(path.exists());
    new.client().echo(b"hello");
    drop(new);
    assert!(!path.exists());
}

#[test]
fn two_servers_cannot_share_a_path() {
    let directory = TempDir::new();
    let path = directory.join("socket");
    let server = TestServer::configured(at(&path), Script::echo());
    refused(&path);
    server.client().echo(b"hello");
}

#[test]
fn a_start_that_fails_removes_what_it_bound() {
    let directory = TempDir::new();
    let path = directory.join("socket");
    let taken = directory.join("taken");
    fs::write(&taken, "").unwrap();
    let server = Server::new().listen(&*path).listen(&*taken).reactors(1);
    assert!(TestServer::try_start(server, Script::echo()).is_err());
    assert!(!path.exists());
    let server = Server::new().listen(&*path).reactors(2);
    let panicking = Script::echo().on_start(|core, _| assert_eq!(core.reactor(), 0, "as it was told"));
    match TestServer::try_start(server, panicking) {
        Err(StartError::Panicked { reactor: 1, message, .. }) => assert!(message.contains("as it was told")),
        other => panic!("{other:?}"),
    }
    assert!(!path.exists());
}
