//! Writes the corpus anew, after a change of the wire format: `cargo run --example write_corpus`.

use std::{fs, io};

use bytes::{Bytes, BytesMut};
use mesh_fuzz::Corpus;
use mesh_proto::{
    Body, ControlReply, ControlRequest, Digest, DigestPage, Expiry, Frame, FrameBody, GossipBody, GossipMessage, Hello,
    Incarnation, KeyHash, Member, MemberState, Micros, NodeId, ReadAnswer, Record, RejectReason, RequestId, RingHash, Slot,
    RecordLimits, SlotPage, Stage, TraceContext, Version, Weight, WriteAnswer, encode_into,
};

fn main() -> io::Result<()> {
    for (name, body) in bodies() {
        let frame = Frame::new(RequestId(7), RingHash::new(9), body);
        write_frame(name, &frame)?;
        if name == "write_applied" {
            write_frame("write_reply_waited", &Frame { waited: Micros::new(250), ..frame.clone() })?;
        }
        if name == "write" {
            write_frame("write_traced", &Frame { trace: Some(TraceContext([3; 26])), ..frame })?;
        }
    }
    for (name, body) in gossip_bodies() {
        let message = GossipMessage { from: NodeId::new(1), body, updates: members() };
        write("gossip_message", name, &message.encode())?;
    }
    for (name, request) in http_requests() {
        write("http_request", name, request.as_bytes())?;
    }
    Ok(())
}

/// Requests that end well, and the beginnings of those that do not.
fn http_requests() -> [(&'static str, &'static str); 18] {
    [
        ("get", "GET /get?k=k HTTP/1.1\r\nhost: n\r\n\r\n"),
        ("get_quorum", "GET /get?k=%6B&consistency=quorum HTTP/1.1\r\nhost: n\r\n\r\n"),
        (
            "get_session",
            "GET /get?k=k&consistency=session HTTP/1.1\r\nhost: n\r\nx-mesh-min-version: 00000000000000000000000000000001\r\n\r\n",
        ),
        (
            "get_traced",
            "GET /get?k=k HTTP/1.1\r\nhost: n\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        ),
        ("get_miss", "GET /get?k=nobody HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"),
        (
            "set",
            "POST /set HTTP/1.1\r\nhost: n\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"k\":\"k\",\"v\":\"v\"}",
        ),
        (
            "set_ttl",
            "POST /set HTTP/1.1\r\nhost: n\r\ncontent-length: 40\r\n\r\n{\"k\":\"\\u00e4\\n\",\"v\":\"v\",\"ttl_ms\":60000}   ",
        ),
        (
            "set_raw",
            "POST /set?k=k&ttl_ms=-1 HTTP/1.1\r\nhost: n\r\ncontent-type: application/octet-stream\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            "set_chunked",
            "POST /set?k=c HTTP/1.1\r\nhost: n\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        ),
        (
            "set_expect",
            "POST /set?k=e HTTP/1.1\r\nhost: n\r\nexpect: 100-continue\r\ncontent-type: application/octet-stream\r\ncontent-length: 1\r\n\r\nx",
        ),
        ("set_too_large", "POST /set HTTP/1.1\r\nhost: n\r\ncontent-length: 99999\r\n\r\n{"),
        ("del", "DELETE /del?k=gone HTTP/1.1\r\nhost: n\r\n\r\n"),
        ("kill", "POST /kill?token=t&mode=pause&for_ms=5 HTTP/1.1\r\nhost: n\r\ncontent-length: 0\r\n\r\n"),
        ("stats", "HEAD /stats HTTP/1.1\r\nhost: n\r\n\r\n"),
        ("cluster", "GET /cluster HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n"),
        ("ready", "GET http://n:1/ready HTTP/1.1\r\nhost: n\r\n\r\n"),
        ("metrics", "GET /metrics HTTP/1.1\r\nhost: n\r\naccept: application/openmetrics-text\r\n\r\n"),
        ("two", "GET /get?k=k HTTP/1.1\r\nhost: n\r\n\r\nDELETE /x HTTP/1.1\r\nhost: n\r\n\r\n"),
    ]
}

fn write_frame(name: &str, frame: &Frame) -> io::Result<()> {
    let mut out = BytesMut::new();
    encode_into(frame, &mut out);
    write("frame_decoder", name, &out)
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let directory = Corpus::directory(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), bytes)
}

fn bodies() -> Vec<(&'static str, FrameBody)> {
    let (key, value) = (Bytes::from_static(b"key:1"), Bytes::from_static(b"a value"));
    let (hash, version, expiry) = (KeyHash::of(&key), Version::new(1 << 100), Expiry::new(1_700_000_000_000));
    let slot = Slot::of(hash);
    let record = Record { hash, key: key.clone(), version, expiry, body: Body::Value(value.clone()) };
    let tombstone = Record { body: Body::Tombstone, ..record.clone() };
    let expired = Record { body: Body::Expired, ..record.clone() };
    let (id, addr) = (NodeId::new(1), "node1:5011".to_owned());
    let limits = RecordLimits { key_bytes_max: 4096, value_bytes_max: 2 << 20 };
    let mesh = "mesh".to_owned();
    let hello = Hello { protocol: Hello::PROTOCOL, id, addr, start: 2, mesh, replicas: 3, concern: 2, limits };
    let read_reply = |answer| FrameBody::ReadReply { hash, answer };
    let write_reply = |answer| FrameBody::WriteReply { hash, answer };
    vec![
        ("hello", FrameBody::Hello(hello.clone())),
        ("hello_reply", FrameBody::HelloReply(Ok(hello))),
        ("hello_rejected", FrameBody::HelloReply(Err(RejectReason::Concern { replicas: 3, concern: 2 }))),
        ("read", FrameBody::Read { hash, key }),
        ("read_value", read_reply(ReadAnswer::Value { version, expiry, value, in_sync: true })),
        ("read_gone", read_reply(ReadAnswer::Gone { version })),
        ("read_absent", read_reply(ReadAnswer::Absent)),
        ("read_unknown", read_reply(ReadAnswer::Unknown)),
        ("read_wrong_ring", read_reply(ReadAnswer::WrongRing(members()))),
        ("write", FrameBody::Write(record.clone())),
        ("write_tombstone", FrameBody::Write(tombstone.clone())),
        ("write_applied", write_reply(WriteAnswer::Applied)),
        ("write_stale", write_reply(WriteAnswer::Stale { newer: version, in_sync: true })),
        ("write_stale_unconfirmed", write_reply(WriteAnswer::Stale { newer: version, in_sync: false })),
        ("write_collected", write_reply(WriteAnswer::Collected { newer: version })),
        ("write_drift", write_reply(WriteAnswer::Drift { ahead_ms: 900 })),
        ("write_wrong_ring", write_reply(WriteAnswer::WrongRing(members()))),
        ("control_members", FrameBody::Control(ControlRequest::Members(members()))),
        ("control_digests", FrameBody::Control(ControlRequest::Digests { first: slot, count: 1 })),
        ("control_versions", FrameBody::Control(ControlRequest::Versions { slots: vec![slot] })),
        ("control_pull", FrameBody::Control(ControlRequest::Pull { slot, after: Some(hash), bytes_max: 1 << 20 })),
        ("control_pull_keys", FrameBody::Control(pull_keys(slot, hash))),
        ("control_compare_with_me", FrameBody::Control(ControlRequest::CompareWithMe)),
        ("control_handed_over", FrameBody::Control(ControlRequest::HandedOver { incarnation: Incarnation::new(7) })),
        ("control_in_sync", FrameBody::Control(ControlRequest::InSync)),
        ("control_reached", FrameBody::Control(ControlRequest::Reached { start: 7 })),
        ("reply_members", FrameBody::ControlReply(ControlReply::Members(members()))),
        ("reply_digests", FrameBody::ControlReply(ControlReply::Digests(digests(slot)))),
        ("reply_versions", FrameBody::ControlReply(ControlReply::Versions(vec![(slot, vec![(hash, version)])]))),
        ("reply_in_sync", FrameBody::ControlReply(ControlReply::InSync(vec![u64::MAX; 64]))),
        ("page", FrameBody::Page(SlotPage { slot, records: vec![record, tombstone, expired], next: Some(hash) })),
    ]
}

fn pull_keys(slot: Slot, hash: KeyHash) -> ControlRequest {
    ControlRequest::PullKeys { slot, hashes: vec![hash], bytes_max: 1 << 20 }
}

fn digests(first: Slot) -> DigestPage {
    DigestPage { first, digests: vec![Digest(1)] }
}

fn gossip_bodies() -> [(&'static str, GossipBody); 4] {
    [
        ("ping", GossipBody::Ping { seq: 1 }),
        ("ack", GossipBody::Ack { seq: 1, subject: NodeId::new(2) }),
        ("ping_request", GossipBody::PingRequest { seq: 1, target: NodeId::new(2) }),
        ("updates", GossipBody::Updates),
    ]
}

fn members() -> Vec<Member> {
    let states = [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left];
    let member = |(number, state)| Member {
        id: NodeId::new(number),
        addr: format!("node{number}:5011"),
        incarnation: Incarnation::new(number << 20),
        weight: Weight::MAX,
        state,
        stage: if number == 1 { Stage::Joining } else { Stage::Normal },
    };
    (1..).zip(states).map(member).collect()
}
