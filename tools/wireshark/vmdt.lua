-- Wireshark dissector for VMDT: datagrams of both profiles and control lines in both framings.
-- The formats are those of docs/protocol.md. Datagrams are recognised by their first eight octets
-- on any port, those with compact headers by such a one before them between the same addresses; control connections by their first line where Wireshark tries that before the port
-- (preference tcp.try_heuristic_first), or by "Decode As".
--
-- Use: wireshark -X lua_script:tools/wireshark/vmdt.lua -o tcp.try_heuristic_first:TRUE, or copy it
-- into the folder that Help > About > Folders calls "Personal Lua Plugins".
--
-- License: MIT OR Apache-2.0

local HEADERS = 80
local TAG = 16

local vmdt = Proto("vmdt", "VMDT datagram")
local control = Proto("vmdt_control", "VMDT control line")

local types = {
    [1] = "DATA", [2] = "ACK", [3] = "NAK", [4] = "SYN", [5] = "FIN", [6] = "HEARTBEAT",
    [7] = "DATAGRAM",
}
local fin_kinds = { [0] = "close", [1] = "reset", [2] = "stop" }
local syn_kinds = { [0] = "offer", [1] = "accept" }

local f = {
  magic = ProtoField.string("vmdt.magic", "Magic"),
  version = ProtoField.string("vmdt.version", "Version"),
  source = ProtoField.string("vmdt.source", "Source id"),
  destination = ProtoField.string("vmdt.destination", "Destination id"),
  message = ProtoField.string("vmdt.message", "Message id"),
  index = ProtoField.string("vmdt.index", "Share index"),
  flow = ProtoField.string("vmdt.flow", "Flow"),
  session = ProtoField.uint32("vmdt.session", "Receiver's session id", base.HEX),
  seq = ProtoField.uint16("vmdt.seq", "Sequence number"),
  ack = ProtoField.uint16("vmdt.ack", "Acknowledgment number"),
  type = ProtoField.uint8("vmdt.type", "Type", base.DEC, types),
  flags = ProtoField.uint8("vmdt.flags", "Flags", base.HEX),
  flag_final = ProtoField.bool("vmdt.flags.final", "Final", 8, nil, 0x01),
  flag_retransmit = ProtoField.bool("vmdt.flags.retransmit", "Retransmission", 8, nil, 0x02),
  flag_checksum = ProtoField.bool("vmdt.flags.checksum", "Checksum present", 8, nil, 0x04),
  flag_phase = ProtoField.bool("vmdt.flags.key_phase", "Key phase", 8, nil, 0x80),
  window = ProtoField.uint16("vmdt.window", "Window (KiB)"),
  checksum = ProtoField.uint16("vmdt.checksum", "Checksum", base.HEX),
  length = ProtoField.uint16("vmdt.length", "Payload length"),
  number = ProtoField.uint32("vmdt.number", "Packet number (low 32 bits)"),
  payload = ProtoField.bytes("vmdt.payload", "Payload"),
  text = ProtoField.string("vmdt.text", "Control text"),
  sealed = ProtoField.bytes("vmdt.sealed", "Encrypted payload"),
  tag = ProtoField.bytes("vmdt.tag", "Authentication tag"),
  crc = ProtoField.uint32("vmdt.crc", "Integrity trailer (CRC-32)", base.HEX),
  crc_status = ProtoField.string("vmdt.crc.status", "Integrity"),
  extra = ProtoField.bytes("vmdt.extra", "Octets after the payload"),
  profile = ProtoField.string("vmdt.profile", "Profile"),
  format = ProtoField.uint8("vmdt.format", "Format"),
  syn_kind = ProtoField.uint8("vmdt.syn.kind", "Kind", base.DEC, syn_kinds),
  syn_payload = ProtoField.uint16("vmdt.syn.max_payload", "Largest payload"),
  syn_id = ProtoField.uint32("vmdt.syn.session", "Sender's session id", base.HEX),
  syn_echo = ProtoField.uint32("vmdt.syn.echo", "Echo", base.HEX),
  syn_window = ProtoField.uint32("vmdt.syn.session_window", "Session window"),
  syn_flow = ProtoField.uint32("vmdt.syn.flow_window", "Flow window"),
  syn_idle = ProtoField.uint32("vmdt.syn.idle_ms", "Idle timeout (ms)"),
  handshake = ProtoField.bytes("vmdt.syn.handshake", "Handshake"),
  ack_ranges = ProtoField.uint8("vmdt.ack.ranges", "Ranges"),
  ack_delay = ProtoField.uint32("vmdt.ack.delay_us", "Since the largest arrived (us)"),
  ack_window = ProtoField.uint32("vmdt.ack.session_window", "Session window"),
  ack_largest = ProtoField.uint32("vmdt.ack.largest", "Largest received"),
  ack_first = ProtoField.uint32("vmdt.ack.first", "Received without a gap"),
  ack_gap = ProtoField.uint32("vmdt.ack.gap", "Missing"),
  ack_range = ProtoField.uint32("vmdt.ack.range", "Received"),
  ack_ect0 = ProtoField.uint32("vmdt.ack.ect0", "Marked ECT(0)"),
  ack_ect1 = ProtoField.uint32("vmdt.ack.ect1", "Marked ECT(1)"),
  ack_ce = ProtoField.uint32("vmdt.ack.ce", "Marked CE"),
  nak_holes = ProtoField.uint8("vmdt.nak.holes", "Holes"),
  nak_first = ProtoField.uint16("vmdt.nak.first", "First missing"),
  nak_count = ProtoField.uint16("vmdt.nak.count", "How many"),
  fin_kind = ProtoField.uint8("vmdt.fin.kind", "Kind", base.DEC, fin_kinds),
  fin_code = ProtoField.uint16("vmdt.fin.code", "Code"),
  fin_reason = ProtoField.string("vmdt.fin.reason", "Reason"),
  share_x = ProtoField.uint8("vmdt.share.index", "Share: index"),
  share_size = ProtoField.uint32("vmdt.share.size", "Share: octets of the message"),
  share_k = ProtoField.uint8("vmdt.share.k", "Share: k"),
  share_key = ProtoField.uint32("vmdt.share.key_size", "Share: key share size"),
  share_nonce = ProtoField.bytes("vmdt.share.nonce", "Share: nonce"),
}
for _, field in pairs(f) do vmdt.fields[#vmdt.fields + 1] = field end

local e_short = ProtoExpert.new("vmdt.cut_short", "The payload is cut short", expert.group.MALFORMED, expert.severity.ERROR)
local e_crc = ProtoExpert.new("vmdt.bad_crc", "The integrity trailer is wrong", expert.group.CHECKSUM, expert.severity.WARN)
local e_sum = ProtoExpert.new("vmdt.bad_checksum", "The checksum is wrong", expert.group.CHECKSUM, expert.severity.WARN)
local e_type = ProtoExpert.new("vmdt.bad_type", "No such type", expert.group.MALFORMED, expert.severity.ERROR)
local e_again = ProtoExpert.new("vmdt.retransmission", "Retransmission", expert.group.SEQUENCE, expert.severity.NOTE)
vmdt.experts = { e_short, e_crc, e_sum, e_type, e_again }

-- Bit operations in the Lua of every Wireshark: 5.1 with `bit`, later ones with operators.
local band, bxor, rshift
if bit then
  band, bxor, rshift = bit.band, bit.bxor, bit.rshift
elseif bit32 then
  band, bxor, rshift = bit32.band, bit32.bxor, bit32.rshift
else
  band = load("return function(a, b) return a & b end")()
  bxor = load("return function(a, b) return a ~ b end")()
  rshift = load("return function(a, n) return a >> n end")()
end

local function unsigned(value)
  if value < 0 then return value + 4294967296 end
  return value
end

local crc_table = {}
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do
    if band(c, 1) == 1 then c = unsigned(bxor(rshift(c, 1), 0xedb88320)) else c = unsigned(rshift(c, 1)) end
  end
  crc_table[i] = c
end

local function crc32(bytes)
  local c = 0xffffffff
  for i = 0, bytes:len() - 1 do
    c = unsigned(bxor(rshift(c, 8), crc_table[band(bxor(c, bytes:get_index(i)), 0xff)]))
  end
  return unsigned(bxor(c, 0xffffffff))
end

-- RFC 1071 over headers and payload, the field at 72 read as zero.
local function internet_checksum(bytes)
  local sum = 0
  for i = 0, bytes:len() - 1, 2 do
    local high = bytes:get_index(i)
    local low = 0
    if i + 1 < bytes:len() then low = bytes:get_index(i + 1) end
    if i ~= 72 then sum = sum + high * 256 + low end
  end
  while sum > 65535 do sum = (sum % 65536) + math.floor(sum / 65536) end
  return 65535 - sum
end

-- The text of a field that NUL ends, or the field's end.
local function name(range)
  return (range:string():match("^[^%z]*"))
end

local function is_sealed(source, destination, version)
  return source:sub(1, 1) == "@" or destination:sub(1, 1) == "@" or version == "1.1"
end

local function dissect_syn(range, tree, info)
  if range:len() < 24 then return end
  tree:add(f.format, range(0, 1))
  tree:add(f.syn_kind, range(1, 1))
  tree:add(f.syn_payload, range(2, 2))
  tree:add(f.syn_id, range(4, 4))
  tree:add(f.syn_echo, range(8, 4))
  tree:add(f.syn_window, range(12, 4))
  tree:add(f.syn_flow, range(16, 4))
  tree:add(f.syn_idle, range(20, 4))
  info[#info + 1] = syn_kinds[range(1, 1):uint()] or "?"
end


local function dissect_ack(range, tree, info)
  if range:len() < 20 then return end
  tree:add(f.format, range(0, 1))
  tree:add(f.ack_ranges, range(1, 1))
  tree:add(f.ack_delay, range(4, 4))
  tree:add(f.ack_window, range(8, 4))
  tree:add(f.ack_largest, range(12, 4))
  tree:add(f.ack_first, range(16, 4))
  local ranges = range(1, 1):uint()
  info[#info + 1] = string.format("largest %u, %u range(s)", range(12, 4):uint(), ranges)
  if range(0, 1):uint() ~= 1 then
    if range:len() > 20 then tree:add(f.payload, range(20)) end
    return
  end
  for i = 1, ranges - 1 do
    local at = 20 + (i - 1) * 8
    if range:len() < at + 8 then return end
    tree:add(f.ack_gap, range(at, 4))
    tree:add(f.ack_range, range(at + 4, 4))
  end
  -- how many packets came with each ECN mark, where any has
  local at = 12 + ranges * 8
  if range:len() >= at + 12 then
    tree:add(f.ack_ect0, range(at, 4))
    tree:add(f.ack_ect1, range(at + 4, 4))
    tree:add(f.ack_ce, range(at + 8, 4))
  end
end

local function dissect_nak(range, tree, info)
  if range:len() < 2 then return end
  tree:add(f.format, range(0, 1))
  tree:add(f.nak_holes, range(1, 1))
  info[#info + 1] = string.format("%u hole(s)", range(1, 1):uint())
  for i = 0, range(1, 1):uint() - 1 do
    local at = 2 + 4 * i
    if range:len() < at + 4 then return end
    tree:add(f.nak_first, range(at, 2))
    tree:add(f.nak_count, range(at + 2, 2))
  end
end

local function dissect_fin(range, tree, info)
  if range:len() < 4 then return end
  tree:add(f.format, range(0, 1))
  tree:add(f.fin_kind, range(1, 1))
  tree:add(f.fin_code, range(2, 2))
  if range:len() > 4 then tree:add(f.fin_reason, range(4)) end
  info[#info + 1] = string.format("%s, code %u", fin_kinds[range(1, 1):uint()] or "?", range(2, 2):uint())
end

-- The head of a share (SSMS version 1), at the beginning of its flow.
local function dissect_share(range, tree)
  if range:len() < 54 or range(0, 1):uint() == 0 or range(6, 4):uint() ~= 32 then return end
  tree:add(f.share_x, range(0, 1))
  tree:add(f.share_size, range(1, 4))
  tree:add(f.share_k, range(5, 1))
  tree:add(f.share_key, range(6, 4))
  tree:add(f.share_nonce, range(10, 12))
end

local function dissect_payload(kind, range, control_flow, seq, tree, info)
  if kind == 1 then
    if control_flow then
      tree:add(f.text, range)
      local line = range:string():match("VMDT/TCP/1%.%d/([A-Z0-9_]+)")
      if line then info[#info + 1] = line end
    else
      tree:add(f.payload, range)
      if seq == 0 then dissect_share(range, tree) end
    end
  elseif kind == 2 then
    dissect_ack(range, tree, info)
  elseif kind == 3 then
    dissect_nak(range, tree, info)
  elseif kind == 4 then
    dissect_syn(range, tree, info)
  elseif kind == 5 then
    dissect_fin(range, tree, info)
  elseif range:len() > 0 then
    tree:add(f.payload, range)
  end
end

local dissect_compact

function vmdt.dissector(buffer, pinfo, root)
  if buffer:len() >= 26 and buffer(0, 1):uint() >= 128 then return dissect_compact(buffer, pinfo, root) end
  if buffer:len() < HEADERS then return 0 end
  if buffer(0, 4):string() ~= "VMDT" then return 0 end
  local tree = root:add(vmdt, buffer())
  pinfo.cols.protocol = "VMDT"

  local version = name(buffer(4, 4))
  local source, destination = name(buffer(8, 16)), name(buffer(24, 16))
  local message, index = name(buffer(40, 16)), name(buffer(56, 4))
  local control_flow = buffer(40, 1):uint() == 0
  local kind, flags = buffer(68, 1):uint(), buffer(69, 1):uint()
  local length = buffer(74, 2):uint()
  local seq = buffer(64, 2):uint()
  local sealed = is_sealed(source, destination, version)

  tree:add(f.magic, buffer(0, 4))
  tree:add(f.version, buffer(4, 4))
  tree:add(f.source, buffer(8, 16), source)
  tree:add(f.destination, buffer(24, 16), destination)
  tree:add(f.message, buffer(40, 16), message)
  tree:add(f.index, buffer(56, 4), index)
  local flow = control_flow and "control" or (message .. "/" .. index)
  tree:add(f.flow, buffer(40, 20), flow):set_generated()
  tree:add(f.profile, buffer(4, 4), sealed and "1.1 sealed" or "1.0 open"):set_generated()
  tree:add(f.session, buffer(60, 4))
  tree:add(f.seq, buffer(64, 2))
  tree:add(f.ack, buffer(66, 2))
  local type_item = tree:add(f.type, buffer(68, 1))
  if not types[kind] then type_item:add_proto_expert_info(e_type) end
  local flag_tree = tree:add(f.flags, buffer(69, 1))
  flag_tree:add(f.flag_final, buffer(69, 1))
  flag_tree:add(f.flag_retransmit, buffer(69, 1))
  flag_tree:add(f.flag_checksum, buffer(69, 1))
  flag_tree:add(f.flag_phase, buffer(69, 1))
  tree:add(f.window, buffer(70, 2))
  local sum_item = tree:add(f.checksum, buffer(72, 2))
  tree:add(f.length, buffer(74, 2))
  tree:add(f.number, buffer(76, 4))

  local info = {
    string.format("%s %s > %s %s", types[kind] or "?", source, destination, flow),
  }
  if kind == 1 then info[#info + 1] = string.format("seq %u, %u octets", seq, length) end
  if kind ~= 4 then info[#info + 1] = string.format("#%u", buffer(76, 4):uint()) end
  if band(flags, 1) ~= 0 then info[#info + 1] = "FINAL" end
  if band(flags, 2) ~= 0 then
    info[#info + 1] = "again"
    flag_tree:add_proto_expert_info(e_again)
  end

  local rest = buffer:len() - HEADERS
  if length > rest then
    tree:add_proto_expert_info(e_short)
    length = rest
  end
  -- the handshake itself is not sealed; everything after it is
  if sealed and kind ~= 4 then
    if length > 0 then tree:add(f.sealed, buffer(HEADERS, length)) end
    local after = rest - length
    if after >= TAG then
      tree:add(f.tag, buffer(HEADERS + length, TAG))
      if after > TAG then tree:add(f.extra, buffer(HEADERS + length + TAG)) end
    else
      tree:add_proto_expert_info(e_short)
    end
    info[#info + 1] = "sealed"
  else
    if length > 0 then
      local range = buffer(HEADERS, length)
      if sealed then
        tree:add(f.handshake, range)
      else
        dissect_payload(kind, range, control_flow, seq, tree, info)
      end
    end
    if band(flags, 4) ~= 0 then
      local expected = internet_checksum(buffer(0, HEADERS + length):bytes())
      if expected ~= buffer(72, 2):uint() then sum_item:add_proto_expert_info(e_sum) end
    end
    local after = rest - length
    if after == 4 and not sealed then
      local trailer = buffer(HEADERS + length, 4)
      local item = tree:add(f.crc, trailer)
      local good = crc32(buffer(0, HEADERS + length):bytes()) == trailer:uint()
      tree:add(f.crc_status, trailer, good and "good" or "bad"):set_generated()
      if not good then item:add_proto_expert_info(e_crc) end
    elseif after > 0 then
      tree:add(f.extra, buffer(HEADERS + length))
    end
  end
  pinfo.cols.info = table.concat(info, ", ")
  return buffer:len()
end

-- Compact headers (profile 1.1): session and packet number, a flow where one is named, and what the
-- type needs.
function dissect_compact(buffer, pinfo, root)
  local first = buffer(0, 1):uint()
  local kind = rshift(band(first, 0x70), 4)
  local with_flow = band(first, 8) ~= 0
  local len = 10 + (with_flow and 18 or 0)
  if kind == 1 then len = len + 2 elseif kind == 2 or kind == 3 then len = len + 4 end
  if band(first, 7) ~= 0 or not types[kind] or kind == 4 or buffer:len() < len + TAG then return 0 end
  local tree = root:add(vmdt, buffer())
  pinfo.cols.protocol = "VMDT"
  tree:add(f.profile, buffer(0, 1), "1.1 sealed"):set_generated()
  tree:add(f.type, buffer(0, 1), kind)
  local flags = buffer(1, 1):uint()
  local flag_tree = tree:add(f.flags, buffer(1, 1))
  flag_tree:add(f.flag_final, buffer(1, 1))
  flag_tree:add(f.flag_retransmit, buffer(1, 1))
  flag_tree:add(f.flag_phase, buffer(1, 1))
  tree:add(f.session, buffer(2, 4))
  tree:add(f.number, buffer(6, 4))
  local at, flow = 10, "control"
  if with_flow then
    local message, index = name(buffer(10, 16)), string.format("%04u", buffer(26, 2):uint())
    flow = message .. "/" .. index
    tree:add(f.message, buffer(10, 16), message)
    tree:add(f.index, buffer(26, 2), index)
    tree:add(f.flow, buffer(10, 18), flow):set_generated()
    at = 28
  end
  local info = { string.format("%s %s", types[kind], flow) }
  local sealed = buffer:len() - len - TAG
  if kind == 1 then
    tree:add(f.seq, buffer(at, 2))
    info[#info + 1] = string.format("seq %u, %u octets", buffer(at, 2):uint(), sealed)
  elseif kind == 2 or kind == 3 then
    tree:add(f.ack, buffer(at, 2))
    tree:add(f.window, buffer(at + 2, 2))
  end
  info[#info + 1] = string.format("#%u", buffer(6, 4):uint())
  if band(flags, 1) ~= 0 then info[#info + 1] = "FINAL" end
  if band(flags, 2) ~= 0 then
    info[#info + 1] = "again"
    flag_tree:add_proto_expert_info(e_again)
  end
  if sealed > 0 then tree:add(f.sealed, buffer(len, sealed)) end
  tree:add(f.tag, buffer(len + sealed, TAG))
  info[#info + 1] = "sealed"
  pinfo.cols.info = table.concat(info, ", ")
  return buffer:len()
end

-- The two ends of a datagram, whichever sent it.
local function ends(pinfo)
  local a = tostring(pinfo.src) .. " " .. tostring(pinfo.src_port)
  local b = tostring(pinfo.dst) .. " " .. tostring(pinfo.dst_port)
  if a < b then return a .. " " .. b end
  return b .. " " .. a
end

-- Between whom datagrams with full headers were seen.
local pairs_seen = {}

local function is_datagram(buffer)
  if buffer:len() < HEADERS then return false end
  local head = buffer(0, 8):bytes():tohex()
  -- "VMDT1.0\0" and "VMDT1.1\0"
  return head == "564D4454312E3000" or head == "564D4454312E3100"
end

vmdt:register_heuristic("udp", function(buffer, pinfo, root)
  if is_datagram(buffer) then
    pairs_seen[ends(pinfo)] = true
    vmdt.dissector(buffer, pinfo, root)
    return true
  end
  if buffer:len() < 26 or buffer(0, 1):uint() < 128 or not pairs_seen[ends(pinfo)] then return false end
  return dissect_compact(buffer, pinfo, root) > 0
end)
DissectorTable.get("udp.port"):add_for_decode_as(vmdt)

-- ---- control lines

local c = {
  line = ProtoField.string("vmdt_control.line", "Line"),
  framing = ProtoField.string("vmdt_control.framing", "Framing"),
  type = ProtoField.string("vmdt_control.type", "Type"),
  parameter = ProtoField.string("vmdt_control.parameter", "Parameter"),
  tag = ProtoField.string("vmdt_control.tag", "Tag"),
}
for _, field in pairs(c) do control.fields[#control.fields + 1] = field end
local e_line = ProtoExpert.new("vmdt_control.not_a_line", "Not a control line", expert.group.MALFORMED, expert.severity.WARN)
control.experts = { e_line }

local known = {}
for word in ([[REGISTER_P2P_PORT CREATE_CLUSTER JOIN_CLUSTER LEAVE_CLUSTER LIST_CLUSTERS
  GET_CLUSTER_MEMBERS GET_CLIENT_INFO MESSAGE_SHARE MESSAGE_RECEIVED SEND_MESSAGE ERROR OK
  CLUSTER_CREATED CLUSTER_JOINED CLUSTER_LIST CLUSTER_MEMBERS CLIENT_INFO CLUSTER_READY MEMBER
  SHARE_POOL_ADD SHARE_POOL_CLAIM SHARE_POOL_ACK SHARE_POOL_STORED SHARE_POOL_UNFREEZE SHARE_POOL_REMOVE SHARE_REPAIR
  PUT_PROFILE GET_PROFILE PROFILE CREATE_SEALED JOIN_SEALED GET_DESCRIPTOR DESCRIPTOR
  GET_MEMBERSHIP MEMBERSHIP REVOKE REVOKED CODE_OPEN CODE_JOIN CODE_PASS CODE_CLOSE CODE
  RECEIPT]]):gmatch("[A-Z0-9_]+") do known[word] = true end

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Splits a line: framing, type, parameters as {offset, length, text}.
local function split(line)
  local framing, at, separator
  local prefix = line:match("^VMDT/TCP/1%.%d/()")
  if prefix then
    framing, at, separator = "slash", prefix, "/"
  else
    framing, at, separator = "bar", 1, "|"
  end
  local words = {}
  while true do
    local stop = line:find(separator, at, true)
    local word = line:sub(at, (stop or #line + 1) - 1)
    words[#words + 1] = { at - 1, #word, framing == "slash" and unescape(word) or word }
    if not stop then break end
    at = stop + 1
  end
  return framing, words
end

local function dissect_line(buffer, root, info)
  local text = buffer:string():gsub("[\r\n]+$", "")
  local blank = #(text:match("^[ \t]*"))
  local line = text:sub(blank + 1)
  if line == "" then return end
  local tree = root:add(control, buffer)
  local framing, words = split(line)
  local kind = words[1][3]
  tree:add(c.line, buffer(blank, #line))
  tree:add(c.framing, buffer(blank, #line), framing):set_generated()
  local item = tree:add(c.type, buffer(blank + words[1][1], words[1][2]), kind)
  if not known[kind] then item:add_proto_expert_info(e_line) end
  for i = 2, #words do
    local at, len, value = words[i][1], words[i][2], words[i][3]
    local range = len > 0 and buffer(blank + at, len) or buffer(blank + at, 0)
    if i == #words and value:match("^~%d+$") then
      tree:add(c.tag, range, value:sub(2))
    else
      tree:add(c.parameter, range, value)
    end
  end
  tree:append_text(": " .. kind)
  info[#info + 1] = kind
end

function control.dissector(buffer, pinfo, root)
  pinfo.cols.protocol = "VMDT-CTL"
  local at, info = 0, {}
  while at < buffer:len() do
    local stop
    for i = at, buffer:len() - 1 do
      if buffer(i, 1):uint() == 10 then stop = i break end
    end
    if not stop then
      -- the rest of the line comes with the next segment
      pinfo.desegment_offset = at
      pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
      break
    end
    dissect_line(buffer(at, stop - at + 1), root, info)
    at = stop + 1
  end
  if #info > 0 then pinfo.cols.info = table.concat(info, ", ") end
  return at
end

local tcp_port = DissectorTable.get("tcp.port")
tcp_port:add_for_decode_as(control)

control:register_heuristic("tcp", function(buffer, pinfo, root)
  local text = buffer(0, math.min(buffer:len(), 64)):string()
  local kind = text:match("^%s*VMDT/TCP/1%.%d/([A-Z0-9_]+)") or text:match("^%s*([A-Z0-9_]+)|")
  if not kind or not known[kind] then return false end
  control.dissector(buffer, pinfo, root)
  pinfo.conversation = control
  return true
end)
