//! Fetching from a server on loopback that cuts, stalls and lies, and archives that would leave their folder.

mod archives;
pub mod server;

use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use self::archives::*;
use self::server::{Answer, Server};
use crate::common::program::{command, fail, succeed, text, u2seg};
use u2seg::low_level::fetch::{Digest, Fetched, Limits, Progress, Source, fetch};
use u2seg::{Error, Result};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fetches what a server has under a name, whose bytes must be `expected`.
fn get(server: &Server, name: &str, expected: &[u8], into: &Path) -> Result<Fetched> {
    let source = Source::at(&server.at(name), Digest::sha256(&hex(expected)).unwrap())?;
    fetch(&source, into, &Limits::default(), &|_| Ok(()), &mut |_| Ok(()))
}

/// Names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The dataset is there, whole, and nothing beside it.
fn whole(folder: &Path, fetched: Result<Fetched>) {
    let place = folder.join("small");
    assert_eq!(fetched.unwrap(), Fetched::New(place.clone()));
    assert_eq!(names(folder), ["small"]);
    assert_eq!(names(&place), [".u2seg-fetched.json", "dataset.json", "imagesTr"]);
    let archive = dataset();
    let image = std::fs::read(place.join("imagesTr/a.nii")).unwrap();
    assert!(image.len() == 300_000 && archive.windows(512).any(|part| part == &image[..512]));
}

#[test]
fn a_connection_that_is_cut_goes_on_where_it_was() {
    let archive = dataset();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&archive, &[Answer::Cut(150_000), Answer::Cut(50_000)]);
    whole(folder.path(), get(&server, "small.tar", &archive, folder.path()));
    let requests = server.requests();
    let ranges: Vec<&str> = requests
        .iter()
        .flat_map(|request| request.lines().filter(|line| line.contains("range: ")))
        .collect();
    let tag = "if-range: \"one\"";
    assert_eq!(ranges, ["range: bytes=150000-", tag, "range: bytes=200000-", tag]);
    // what is there, whole, is not fetched again
    let again = get(&server, "small.tar", &archive, folder.path()).unwrap();
    assert_eq!(again, Fetched::Before(folder.path().join("small")));
    assert_eq!(server.requests().len(), 3);
    // unless it is another file by its sum
    let other = get(&server, "small.tar", b"other", folder.path()).unwrap_err().to_string();
    assert!(other.contains("another folder") && other.contains("Move it away"), "{other}");
}

#[test]
fn servers_that_know_no_ranges_or_sizes_begin_anew() {
    let archive = dataset();
    for answers in [
        &[Answer::Cut(100_000), Answer::NoRanges][..],
        &[Answer::Cut(100_000), Answer::OtherPart],
        &[Answer::Cut(100_000), Answer::NoLength],
        &[Answer::NoLength],
        &[Answer::Redirect("/elsewhere"), Answer::Whole],
        &[Answer::Status("503 Busy"), Answer::Whole],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&archive, answers);
        whole(folder.path(), get(&server, "small.tar", &archive, folder.path()));
    }
}

#[test]
fn work_that_was_stopped_goes_on_in_every_stage() {
    let archive = dataset();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&archive, &[]);
    let digest = Digest::sha256(&hex(&archive)).unwrap();
    let source = Source::at(&server.at("small.tar"), digest).unwrap();
    let stages = [u2seg::FetchStage::Downloading, u2seg::FetchStage::Checking];
    for stage in stages.into_iter().chain([u2seg::FetchStage::Unpacking]) {
        let mut watch = |progress: Progress| match progress.stage == stage && progress.done > 0 {
            true => Err(Error::Stopped),
            false => Ok(()),
        };
        let accept = |_: &Path| Ok(());
        let stopped = fetch(&source, folder.path(), &Limits::default(), &accept, &mut watch);
        assert!(matches!(stopped, Err(Error::Stopped)), "{stage:?}: {stopped:?}");
        assert_eq!(names(folder.path()), ["small.fetching"]);
        assert_eq!(names(&folder.path().join("small.fetching")), ["archive", "state.json"]);
    }
    // the second and third time there was nothing left to ask for
    assert_eq!(server.requests().len(), 2);
    whole(folder.path(), get(&server, "small.tar", &archive, folder.path()));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_killed_process_goes_on_and_holds_its_lock_till_then() {
    let archive = dataset();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&archive, &[Answer::Stall(200_000)]);
    let (sum, url) = (hex(&archive), server.at("small.tar"));
    let into = folder.path().to_str().unwrap();
    let args = ["fetch", &url, "--sha256", &sum, "-o", into];
    let mut child = command(&args).stderr(std::process::Stdio::null()).spawn().unwrap();
    let part = folder.path().join("small.fetching/archive");
    let came = || part.metadata().is_ok_and(|data| data.len() == 200_000);
    for _ in 0..200 {
        if came() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(came());
    let message = fail(&args);
    assert!(message.contains(&format!("process {}", child.id())), "{message}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(folder.path()), ["small.fetching"]);
    let stdout = succeed(&args);
    assert_eq!(stdout.trim(), folder.path().join("small").to_str().unwrap());
    assert!(server.requests()[1].contains("range: bytes=200000-"));
    assert_eq!(names(folder.path()), ["small"]);
    let output = u2seg(&args);
    assert!(output.status.success() && text(&output.stderr).contains("is there already"));
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let page = b"<!DOCTYPE html><title>Log in</title>";
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(page, &[]);
    let message = get(&server, "a.tar", b"another", folder.path()).unwrap_err().to_string();
    let (found, expected) = (hex(page), hex(b"another"));
    assert!(message.contains(&format!("a web page (HTML), sha256:{found}")), "{message}");
    assert!(message.contains(&format!("expected sha256:{expected}")), "{message}");
    assert!(names(folder.path()).is_empty());
    // what an earlier call left goes too
    let half = Server::start(&[0; 9], &[Answer::Cut(5), Answer::Status("404 No")]);
    assert!(get(&half, "b.tar", b"another", folder.path()).is_err());
    assert_eq!(names(folder.path()), ["b.fetching"]);
    assert!(get(&half, "b.tar", b"another", folder.path()).is_err());
    assert!(names(folder.path()).is_empty());
    // a mirror is held to the published sum
    let into = folder.path().to_str().unwrap();
    let message = fail(&["fetch", "spleen", "--mirror", &server.at("msd/"), "-o", into]);
    assert!(message.contains("expected md5:410d4a301da4e5b2f6f86ec3ddba524e"), "{message}");
    assert!(server.requests()[1].starts_with("get /msd/task09_spleen.tar "));
}

#[test]
fn servers_without_the_file_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    for (answer, part) in [
        (Answer::Status("404 Not Found"), "404 Not Found; expected a file. Look at the address"),
        (Answer::Status("403 Forbidden"), "Log in with a browser"),
    ] {
        let server = Server::start(b"", &[answer]);
        let message = get(&server, "a.tar", b"", folder.path()).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("/a.tar"), "{message}");
    }
    // nobody listens there any more
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/a.tar", listener.local_addr().unwrap())
    };
    let source = Source::at(&gone, Digest::sha256(&hex(b"")).unwrap()).unwrap();
    let fetched = fetch(&source, folder.path(), &Limits::default(), &|_| Ok(()), &mut |_| Ok(()));
    let message = fetched.unwrap_err().to_string();
    assert!(message.contains("Look at the address and the network"), "{message}");
}

/// Archives that are refused, with words of the reason.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let long = "x".repeat(100_000);
    let mut cut = dataset();
    cut.truncate(100_000);
    vec![
        ("up.tar", tar(&[Entry(FILE, "a/../../up", "", b"x")]), "leads out of the folder"),
        ("root.tar", tar(&[Entry(FILE, "/tmp/u2seg-root", "", b"x")]), "a path from the root"),
        ("link.tar", tar(&[Entry(LINK, "a", "/etc", b"")]), "a symbolic link"),
        ("hard.tar", tar(&[Entry(HARD, "a", "../up", b"")]), "a hard link"),
        ("device.tar", tar(&[Entry(DEVICE, "a", "", b"")]), "a device"),
        ("pipe.tar", tar(&[Entry(PIPE, "a", "", b"")]), "a pipe"),
        (
            "over.tar",
            tar(&[Entry(FOLDER, "a/b/", "", b""), Entry(FILE, "a/b", "", b"x")]),
            "a file over the folder",
        ),
        (
            "under.tar",
            tar(&[Entry(FILE, "a", "", b"x"), Entry(FILE, "a/b", "", b"x")]),
            "a folder over a file",
        ),
        ("twice.tar", tar(&[Entry(FILE, "a", "", b"x"), Entry(FILE, "a", "", b"y")]), "a second"),
        (
            "pax.tar",
            tar(&[Entry(PAX, "p", "", b"16 path=../../x\n"), Entry(FILE, "a", "", b"x")]),
            "leads out",
        ),
        (
            "sizes.tar",
            tar(&[Entry(PAX, "p", "", b"10 size=9\n"), Entry(FILE, "a", "", b"x")]),
            "two sizes",
        ),
        ("long.tar", tar(&[Entry(LONG, "l", "", long.as_bytes())]), "a name of 100000 bytes"),
        ("cut.tar", cut, "cannot be read"),
        ("bomb.tar.gz", gzip(&tar(&[Entry(FILE, "a", "", &vec![0; 5 << 20])])), "max_size"),
        (
            "many.tgz",
            gzip(&tar(&(0..60).map(|_| Entry(FOLDER, "a/b/c", "", b"")).collect::<Vec<_>>())),
            "",
        ),
        ("up.zip", zip(&[("../up", 0o644, b"x")]), "leads out"),
        ("link.zip", zip(&[("a", 0o120_777, b"/etc")]), "a symbolic link"),
        ("bomb.zip", zip(&[("a", 0o644, &vec![0; 5 << 20])]), "max_size"),
        (
            "files.zip",
            zip(&[("a/1", 0o644, b""), ("b/2", 0o644, b""), ("c/3", 0o644, b"")]),
            "max_files",
        ),
    ]
}

#[test]
fn nothing_leaves_its_folder_whatever_the_archive_says() {
    for (name, archive, part) in hostile() {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("in/side");
        std::fs::create_dir_all(&folder).unwrap();
        let server = Server::start(&archive, &[]);
        let source = Source::at(&server.at(name), Digest::sha256(&hex(&archive)).unwrap()).unwrap();
        let limits = Limits { bytes: 4 << 20, files: 5 };
        let fetched = fetch(&source, &folder, &limits, &|_| Ok(()), &mut |_| Ok(()));
        // folders that are named again and again are there once
        if part.is_empty() {
            assert!(fetched.is_ok(), "{name}: {fetched:?}");
            continue;
        }
        let message = fetched.unwrap_err().to_string();
        assert!(message.contains(part), "{name}: {message}");
        assert_eq!(names(around.path()), ["in"], "{name}");
        assert_eq!(names(&around.path().join("in")), ["side"], "{name}");
        let work = format!("{}.fetching", source.name);
        assert_eq!(names(&folder), std::slice::from_ref(&work), "{name}");
        assert_eq!(names(&folder.join(work)), ["archive", "state.json"], "{name}");
    }
    assert!(!Path::new("/tmp/u2seg-root").exists());
}

#[test]
fn archives_of_all_kinds_and_plain_files_come() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let files = [Entry(LONG, "././@LongLink", "", long.as_bytes()), Entry(FILE, "cut", "", b"y")];
    let many = zip(&[("a", 0o644, b"x"), (&long, 0o644, b"y")]);
    let one = tar(&files);
    for (name, archive, file) in [
        ("one.tar", one.clone(), "f".repeat(90)),
        ("one.tgz", gzip(&one), "f".repeat(90)),
        ("many.zip", many, long),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&archive, &[]);
        let Ok(Fetched::New(place)) = get(&server, name, &archive, folder.path()) else {
            panic!("{name}")
        };
        assert_eq!(std::fs::read(place.join(file)).unwrap(), b"y", "{name}");
    }
    // an image in gzip is no archive
    let image = gzip(&[7; 5000]);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&image, &[]);
    let place = folder.path().join("a.nii.gz");
    assert_eq!(
        get(&server, "a.nii.gz", &image, folder.path()).unwrap(),
        Fetched::New(place.clone())
    );
    assert_eq!(std::fs::read(&place).unwrap(), image);
    assert_eq!(names(folder.path()), ["a.nii.gz"]);
    assert_eq!(get(&server, "a.nii.gz", &image, folder.path()).unwrap(), Fetched::Before(place));
}

#[test]
fn the_command_says_what_it_wants() {
    let message = fail(&["fetch", "Task11_Nothing"]);
    assert!(
        message.contains("no task of the Decathlon, and no address; expected a task such as"),
        "{message}"
    );
    assert!(message.contains("`u2seg fetch` with --list"), "{message}");
    let message = fail(&["fetch", "https://nowhere.invalid/a.tar"]);
    assert!(
        message.contains("no checksum") && message.contains("Give --sha256 or --md5"),
        "{message}"
    );
    let message = fail(&["fetch", "spleen", "--md5", &"0".repeat(32)]);
    assert!(message.contains("the published one counts"), "{message}");
    assert_eq!(u2seg(&["fetch"]).status.code(), Some(2));
    assert_eq!(u2seg(&["fetch", "a", "--sha256", "12"]).status.code(), Some(2));
    let list = succeed(&["fetch", "--list"]);
    assert!(list.lines().filter(|line| line.starts_with("Task")).count() == 10, "{list}");
}
