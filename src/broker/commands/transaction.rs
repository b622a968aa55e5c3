//! MULTI, EXEC, DISCARD.

use std::borrow::Cow;

use super::super::client::{Client, Transaction};
use super::super::hub::Hub;
use super::execute_queued;
use crate::bytes::resp_request::{self, Request};

impl Transaction {
    /// Lets EXEC fail, and gives back the memory of what it will not execute.
    pub(super) fn abort(&mut self) {
        *self = Self { aborted: true, ..Self::default() };
    }
}

pub(super) fn multi(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    if client.transaction.is_some() {
        client.reply().error("ERR MULTI calls can not be nested");
    } else {
        client.transaction = Some(Transaction::default());
        client.reply().ok();
    }
}

pub(super) fn discard(_: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    match client.transaction.take() {
        Some(_) => client.reply().ok(),
        None => client.reply().error("ERR DISCARD without MULTI"),
    }
}

/// O(n) in the queued commands: they are one unit, so nobody gets a turn between them.
pub(super) fn exec(hub: &mut Hub, client: &mut Client, _: &[Cow<'_, [u8]>]) {
    let Some(transaction) = client.transaction.take() else {
        return client.reply().error("ERR EXEC without MULTI");
    };
    if transaction.aborted {
        let text = "EXECABORT Transaction discarded because of previous errors.";
        return client.reply().error(text);
    }
    client.reply().array(transaction.commands);
    let bounds = hub.bounds(client);
    let mut rest = &*transaction.queue;
    let mut arguments = Vec::new();
    while let Ok(Request::Complete { consumed }) = resp_request::parse(rest, bounds, &mut arguments)
    {
        if client.output.has_overflowed() {
            return;
        }
        execute_queued(hub, client, &arguments);
        rest = rest.get(consumed..).unwrap_or_default();
    }
}
