//! Child processes that never outlive their test, with what they said kept for its failure message.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::clock::{Deadline, PATIENCE, eventually};

/// Clock ticks per second in proc_pid_stat(5): 100 on every Linux.
const USER_HZ: u64 = 100;

pub(crate) struct Process {
    name: String,
    child: RefCell<Child>,
    pub(crate) output: Lines,
    pub(crate) errors: Lines,
}

impl Process {
    /// Starts `command`; its output is read line by line, and its input is empty.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} did not start: {error}; see tests/install"));
        let output = Lines::read(child.stdout.take().unwrap());
        let errors = Lines::read(child.stderr.take().unwrap());
        Self { name, child: RefCell::new(child), output, errors }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.borrow().id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, and the wait for the end.
    pub(crate) fn kill(&self) {
        // Fails only for a process that has been waited for already.
        let _ = self.child.borrow_mut().kill();
        let _ = self.child.borrow_mut().wait();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.child.borrow_mut().try_wait().unwrap().is_some()
    }

    /// Waits for the process to end of its own accord.
    pub(crate) fn wait(&self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, || self.child.borrow_mut().try_wait().unwrap())
    }

    /// Waits for a successful end, and returns all it printed.
    pub(crate) fn finish(&self) -> Vec<String> {
        let status = self.wait();
        assert!(status.success(), "{} failed: {status}\n{}", self.name, self.transcript());
        self.output.rest()
    }

    /// User and system time used so far by all threads, from proc_pid_stat(5).
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 =
            fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / USER_HZ)
    }

    /// Everything the process has said so far.
    pub(crate) fn transcript(&self) -> String {
        format!(
            "--- {} said:\n{}\n--- and on stderr:\n{}",
            self.name,
            self.output.rest().join("\n"),
            self.errors.rest().join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.transcript());
        }
    }
}

/// The lines of a pipe, read by a thread, so that the process never blocks on a full pipe.
pub(crate) struct Lines {
    arriving: Receiver<String>,
    seen: RefCell<Vec<String>>,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let (sender, arriving) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n') {
                let Ok(line) = line else { return };
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { arriving, seen: RefCell::default() }
    }

    /// The first line, of those seen and those to come, of which `pick` makes something; `None`
    /// at the end of the pipe or of [`PATIENCE`].
    pub(crate) fn find<T>(&self, pick: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.find_within(PATIENCE, pick)
    }

    /// [`Self::find`], with a patience of its own.
    pub(crate) fn find_within<T>(
        &self,
        patience: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        if let Some(found) = self.seen.borrow().iter().find_map(|line| pick(line)) {
            return Some(found);
        }
        let deadline = Deadline::after(patience);
        while let Ok(line) = self.arriving.recv_timeout(deadline.left()?) {
            let found = pick(&line);
            self.seen.borrow_mut().push(line);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The next line that has not been looked at.
    pub(crate) fn next(&self) -> Option<String> {
        let line = self.arriving.recv_timeout(PATIENCE).ok()?;
        self.seen.borrow_mut().push(line.clone());
        Some(line)
    }

    /// All lines of a process that has ended, or those so far of one that runs.
    pub(crate) fn rest(&self) -> Vec<String> {
        while let Ok(line) = self.arriving.recv_timeout(Duration::from_millis(20)) {
            self.seen.borrow_mut().push(line);
        }
        self.seen.borrow().clone()
    }
}
