//! Calls that a worker that is locked in tries, so that a test sees what the system says to them.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::Path,
    process::{Command, id},
    thread,
};

/// Tries `CALL` or `CALL:OBJECT`, and says what came of it: `done`, or the reason why not.
#[must_use]
pub fn outcome(call: &str) -> String {
    let (name, object) = call.split_once(':').unwrap_or((call, ""));
    match attempt(name, object) {
        Ok(()) => "done".to_owned(),
        Err(cause) => cause.to_string(),
    }
}

fn attempt(name: &str, object: &str) -> io::Result<()> {
    let path = Path::new(object);
    match name {
        "read" => File::open(path).map(drop),
        "list" => fs::read_dir(path).map(drop),
        "write" => File::create(path).and_then(|mut file| file.write_all(b"x")),
        "remove" => fs::remove_file(path),
        "rename" => fs::rename(path, path.with_extension("renamed")),
        "link" => symlink(path, path.with_extension("link")),
        "folder" => fs::create_dir(path),
        "rights" => fs::set_permissions(path, fs::Permissions::from_mode(0o600)),
        "memory-of" => File::open(format!("/proc/{object}/mem")).map(drop),
        "tcp-connect" => TcpStream::connect(object).map(drop),
        "tcp-listen" => TcpListener::bind(object).map(drop),
        "udp" => UdpSocket::bind(object).map(drop),
        "unix" => UnixStream::connect(path).map(drop),
        "program" => Command::new(path).status().map(drop),
        "thread" => {
            let started = thread::Builder::new().spawn(id)?;
            started.join().map(drop).map_err(|_| io::Error::other("the thread panicked"))
        }
        "memory" => {
            let bytes = object.parse::<usize>().map_err(io::Error::other)?;
            let mut taken: Vec<u8> = Vec::new();
            taken.try_reserve_exact(bytes).map_err(io::Error::other)
        }
        _ => Err(io::Error::other("there is no such call to try")),
    }
}
