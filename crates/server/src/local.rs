//! Commands of this machine to a running server, and how they are asked: a socket in the data directory, whose owner may do
//! with the data what he likes anyway. A command is one line, and the answer is lines of JSON, of which the last counts.
//!
//! Both ends are here. What is asked for are use cases of the registry; nothing is decided.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use deltaport_registry::Registry;
use deltaport_registry::space::TakenBack;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The most bytes of a command.
const MAX_COMMAND_LEN: u64 = 1 << 10;
/// The most bytes of a line of an answer.
const MAX_ANSWER_LEN: u64 = 64 << 10;
/// How many commands may be under way; who comes then has to come again.
const MAX_COMMANDS: usize = 16;
/// How long a caller may take to say what it wants, or to hear the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a caller hears that work goes on.
const BEAT: Duration = Duration::from_secs(1);
/// How long a server may be silent before its caller gives up.
const SILENCE: Duration = Duration::from_secs(15);
/// How long to wait when the system cannot accept.
const PAUSE: Duration = Duration::from_secs(1);

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Command {
    /// [`Registry::take_back`].
    TakeBack,
}

/// A line of the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    /// It is being done; another line will come.
    Working,
    /// It is done.
    TakenBack(TakenBack),
    /// It is not done, and why.
    Failed(String),
}

/// Where a server takes commands of this machine.
#[derive(Debug)]
pub struct Commands {
    listener: UnixListener,
    path: PathBuf,
}

impl Commands {
    /// Listens at `path`, where nothing may be. Who may enter the directory may give commands.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self { listener: UnixListener::bind(path)?, path: path.to_owned() })
    }

    /// Takes commands until `stop`. What waits for others then ends undone; the rest is done first.
    pub async fn run(self, registry: Registry, stop: CancellationToken) {
        let mut commands = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = commands.join_next() => continue,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) if commands.len() < MAX_COMMANDS => {
                    commands.spawn(serve(stream, registry.clone(), stop.clone()));
                }
                Ok(_) => tracing::warn!("too many commands at once; one was turned away"),
                Err(error) => {
                    tracing::warn!(%error, "cannot take a command");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(self.listener);
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket for commands stays behind");
        }
        while commands.join_next().await.is_some() {}
    }
}

async fn serve(stream: UnixStream, registry: Registry, stop: CancellationToken) {
    let mut stream = tokio::io::BufReader::new(stream);
    let mut line = String::new();
    let mut limited = (&mut stream).take(MAX_COMMAND_LEN);
    // Who says nothing gets no answer.
    let Ok(Ok(1..)) = tokio::time::timeout(PATIENCE, limited.read_line(&mut line)).await else { return };
    let mut stream = stream.into_inner();
    let answer = match serde_json::from_str(&line) {
        Ok(command) => {
            tracing::info!(?command, "a command of this machine");
            let work = stop.run_until_cancelled(Box::pin(carry_out(command, &registry)));
            let done = while_telling(&stream, work).await;
            done.unwrap_or_else(|| Answer::Failed("it was stopped before this was done".to_owned()))
        }
        Err(_) => Answer::Failed("it is another version, which does not know this command".to_owned()),
    };
    // Who went away does not want to know.
    let _unheard = tokio::time::timeout(PATIENCE, stream.write_all(&line_of(&answer))).await;
}

async fn carry_out(command: Command, registry: &Registry) -> Answer {
    match command {
        Command::TakeBack => match registry.take_back(SystemTime::now()).await {
            Ok(taken) => Answer::TakenBack(taken),
            Err(error) => {
                tracing::warn!(?error, "nothing was taken back");
                Answer::Failed(error.to_string())
            }
        },
    }
}

/// Does `work`, and tells the caller every now and then that it goes on.
async fn while_telling<T>(stream: &UnixStream, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let working = line_of(&Answer::Working);
    loop {
        match tokio::time::timeout(BEAT, &mut work).await {
            Ok(done) => return done,
            // Who does not read has not to be told.
            Err(_) => drop(stream.try_write(&working)),
        }
    }
}

fn line_of(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Nobody listens at the socket, or not to this user.
    #[error("it takes no commands; is it another command, a server that starts or stops, or another user's?")]
    Unreachable(#[source] io::Error),
    /// Nothing was heard for 15 s, or the answer ended early.
    #[error("it was asked and does not answer, so this may be done or not")]
    Silent(#[source] io::Error),
    /// It said that it has not done it, and why.
    #[error("{0}")]
    Failed(String),
}

/// Has the server that listens at `path` take back room, and waits until it has. Blocks.
pub fn take_back(path: &Path) -> Result<TakenBack, CommandError> {
    match ask(path, Command::TakeBack)? {
        Answer::TakenBack(taken) => Ok(taken),
        Answer::Failed(why) => Err(CommandError::Failed(why)),
        Answer::Working => Err(CommandError::Silent(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Gives a command and waits for the last line of the answer.
fn ask(path: &Path, command: Command) -> Result<Answer, CommandError> {
    let mut stream = BlockingStream::connect(path).map_err(CommandError::Unreachable)?;
    let answer = || {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut line = serde_json::to_vec(&command)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut lines = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            (&mut lines).take(MAX_ANSWER_LEN).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match serde_json::from_slice(&line)? {
                Answer::Working => {}
                last => return Ok(last),
            }
        }
    };
    answer().map_err(CommandError::Silent)
}
