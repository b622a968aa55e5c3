//! Publishing to history: by the function, which is loaded if it is missing, else by the script.

use super::{Link, Problem};
use crate::bytes::history::{Call, Publication, SCRIPT, encode_load, encode_publication};
use crate::bytes::resp::encode_command;
use crate::io::redis::ClientError;

/// What the server lets us do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Nothing was published yet.
    Unknown,
    Function,
    Script {
        sha1: String,
    },
}

impl Method {
    fn call(&self) -> Call<'_> {
        match self {
            Self::Unknown | Self::Function => Call::Function,
            Self::Script { sha1 } => Call::Script { sha1: sha1.as_bytes() },
        }
    }
}

impl Link<'_> {
    /// Adds an event to those that are to be sent. The first is sent at once, to find out how.
    pub(super) fn add_to_history(&mut self, publication: &Publication<'_>) -> Result<(), Problem> {
        if self.method == Method::Unknown {
            self.find_method(publication)?;
        } else {
            encode_publication(self.method.call(), publication, &mut self.commands);
            self.unanswered += 1;
        }
        Ok(())
    }

    /// Publishes an event in the first way that the server knows and allows.
    fn find_method(&mut self, publication: &Publication<'_>) -> Result<(), Problem> {
        let Err(refusal) = self.attempt(Method::Function, publication)? else { return Ok(()) };
        let function = if refusal.contains("Function not found") {
            encode_load(&mut self.commands);
            match self.ask()? {
                Ok(_) => return self.insist(Method::Function, publication),
                Err(refusal) => refusal,
            }
        } else if refusal.contains("unknown command") || refusal.starts_with("NOPERM") {
            refusal
        } else {
            return Err(Problem::Redis(ClientError::Refused(refusal)));
        };
        encode_command(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()], &mut self.commands);
        match self.ask()? {
            Ok(sha1) => self.insist(Method::Script { sha1 }, publication),
            Err(script) => Err(Problem::NoHistory { function, script }),
        }
    }

    /// Publishes an event; the inner error is the server's.
    fn attempt(
        &mut self,
        method: Method,
        publication: &Publication<'_>,
    ) -> Result<Result<(), String>, Problem> {
        encode_publication(method.call(), publication, &mut self.commands);
        let answer = self.ask()?;
        Ok(match answer {
            Ok(id) => {
                self.method = method;
                self.published.add_id(&id)?;
                Ok(())
            }
            Err(refusal) => Err(refusal),
        })
    }

    fn insist(&mut self, method: Method, publication: &Publication<'_>) -> Result<(), Problem> {
        self.attempt(method, publication)?
            .map_err(|refusal| Problem::Redis(ClientError::Refused(refusal)))
    }

    /// Sends one command and waits for its answer; the inner error is the server's.
    fn ask(&mut self) -> Result<Result<String, String>, Problem> {
        self.send()?;
        match self.read_reply() {
            Ok(reply) => Ok(Ok(reply)),
            Err(Problem::Redis(ClientError::Refused(refusal))) => Ok(Err(refusal)),
            Err(problem) => Err(problem),
        }
    }
}
