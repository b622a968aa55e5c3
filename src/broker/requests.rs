//! What clients send: commands, cut from their bytes and executed one after the other.

use std::borrow::Cow;

use super::client::{Client, ClientId, CloseReason, State};
use super::commands;
use super::hub::{Hub, list};
use crate::bytes::resp_request::{self, Request};
use crate::ground::limits;

/// What [`Hub::receive`] made of a client's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that are done with.
    pub(super) consumed: usize,
    /// Bytes that the next command takes at least.
    pub(super) needed: usize,
}

impl Hub {
    /// Executes all commands that are whole. O(n) in the bytes.
    pub(super) fn receive(&mut self, id: ClientId, input: &[u8]) -> Taken {
        let mut taken = Taken { consumed: 0, needed: 1 };
        let Some(mut client) = self.take(id) else { return taken };
        let output_before = client.output.len();
        let mut arguments = Vec::new();
        while client.state == State::Open {
            let bounds = self.bounds(&client);
            let rest = input.get(taken.consumed..).unwrap_or_default();
            match resp_request::parse(rest, bounds, &mut arguments) {
                Ok(Request::Complete { consumed }) => {
                    taken.consumed += consumed;
                    self.execute(&mut client, &arguments, consumed);
                }
                Ok(Request::Partial { needed }) => {
                    taken.needed = needed;
                    break;
                }
                Err(error) => {
                    self.counters.protocol_errors.add(1);
                    client.reply().error(format!("ERR {error}"));
                    client.state = State::Finishing;
                }
            }
        }
        if client.state != State::Open {
            self.unsubscribe_all(&mut client);
        }
        if client.output.len() != output_before || client.state != State::Open {
            self.unwritten_bytes += client.output.len().saturating_sub(output_before);
            list(&mut client, &mut self.unwritten);
        }
        if let Some(entry) = self.clients.get_mut(id.slot as usize) {
            entry.client = Some(client);
        }
        taken
    }

    /// One command, which took `consumed` bytes.
    fn execute(&mut self, client: &mut Client, arguments: &[Cow<'_, [u8]>], consumed: usize) {
        if !client.authenticated {
            client.unauthenticated_bytes += consumed;
            if client.unauthenticated_bytes > limits::BROKER_UNAUTHENTICATED_BYTES_MAX {
                client.reply().error("NOAUTH Authentication required.");
                client.state = State::Finishing;
                return;
            }
        }
        commands::execute(self, client, arguments);
        if !client.deferred.is_empty() || client.deferred.has_overflowed() {
            client.output.append(&mut client.deferred);
        }
        if client.output.has_overflowed() {
            client.state = State::Closing(CloseReason::OutputOverflow);
        }
    }
}
