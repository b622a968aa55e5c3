//! A value inside a reply, whichever version of the protocol it came in.

use redis_protocol::resp2::{self, types::RangeFrame as Resp2Frame};
use redis_protocol::resp3::{self, types::RangeFrame as Resp3Frame};

/// A value inside a reply, the same for both versions of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    /// Bulk, simple and verbatim strings, and numbers too big for the other variants.
    String(&'a [u8]),
    Error(&'a [u8]),
    /// Arrays and sets.
    Array(Vec<Self>),
    /// In no particular order.
    Map(Vec<(Self, Self)>),
}

impl<'a> Value<'a> {
    /// Decodes a complete item of RESP2. `None` if it is none: an error of the crate says no more,
    /// for its text is the whole input.
    pub(super) fn resp2(item: &'a [u8]) -> Option<Self> {
        let (frame, consumed) = resp2::decode::decode_range(item).ok()??;
        resp2_value(&frame, item).filter(|_| consumed == item.len())
    }

    /// Decodes a complete item of RESP3, `None` if it is none.
    pub(super) fn resp3(item: &'a [u8]) -> Option<Self> {
        let (frame, consumed) = resp3::decode::complete::decode_range(item).ok()??;
        resp3_value(&frame, item).filter(|_| consumed == item.len())
    }
}

/// Recursive, as deep as the caller let the item be.
fn resp2_value<'a>(frame: &Resp2Frame, bytes: &'a [u8]) -> Option<Value<'a>> {
    Some(match frame {
        Resp2Frame::SimpleString(range) | Resp2Frame::BulkString(range) => {
            Value::String(bytes.get(range.0..range.1)?)
        }
        Resp2Frame::Error(range) => Value::Error(bytes.get(range.0..range.1)?),
        Resp2Frame::Integer(number) => Value::Integer(*number),
        Resp2Frame::Array(elements) => {
            let values = elements.iter().map(|element| resp2_value(element, bytes));
            Value::Array(values.collect::<Option<_>>()?)
        }
        Resp2Frame::Null => Value::Null,
    })
}

/// Recursive, as deep as the caller let the item be.
fn resp3_value<'a>(frame: &Resp3Frame, bytes: &'a [u8]) -> Option<Value<'a>> {
    Some(match frame {
        Resp3Frame::BlobString { data, .. }
        | Resp3Frame::SimpleString { data, .. }
        | Resp3Frame::BigNumber { data, .. }
        | Resp3Frame::VerbatimString { data, .. } => Value::String(bytes.get(data.0..data.1)?),
        Resp3Frame::BlobError { data, .. } | Resp3Frame::SimpleError { data, .. } => {
            Value::Error(bytes.get(data.0..data.1)?)
        }
        Resp3Frame::Boolean { data, .. } => Value::Boolean(*data),
        Resp3Frame::Null => Value::Null,
        Resp3Frame::Number { data, .. } => Value::Integer(*data),
        Resp3Frame::Double { data, .. } => Value::Double(*data),
        Resp3Frame::Array { data, .. } => {
            let values = data.iter().map(|element| resp3_value(element, bytes));
            Value::Array(values.collect::<Option<_>>()?)
        }
        Resp3Frame::Set { data, .. } => {
            let values = data.iter().map(|element| resp3_value(element, bytes));
            Value::Array(values.collect::<Option<_>>()?)
        }
        Resp3Frame::Map { data, .. } => {
            let pairs = data
                .iter()
                .map(|(key, value)| Some((resp3_value(key, bytes)?, resp3_value(value, bytes)?)));
            Value::Map(pairs.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
