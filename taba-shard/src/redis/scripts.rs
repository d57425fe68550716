//! The Lua scripts that run in Redis. Each script that changes a VBucket or a user's key has exactly one write
//! command, so no crash, error or torn log leaves it half done. Functions would have to be kept on every replica.

use std::sync::LazyLock;

use redis::{Cmd, ToRedisArgs, cmd};

use crate::sabotage::{CONDITIONAL, LISTED, is_off};

pub(crate) struct Script {
    inner: redis::Script,
    text: String,
}

impl Script {
    fn new(text: String) -> Self {
        let text = if is_off(CONDITIONAL) {
            text.replace("head[1] == ARGV[1]", "head[1]").replace("head[1] ~= ARGV[1]", "not head[1]")
        } else {
            text
        };
        let text = if is_off(LISTED) { text.replace(UNLISTED, BELIEVED) } else { text };
        Self { inner: redis::Script::new(&text), text }
    }

    /// Loads the script.
    pub(crate) fn load(&self) -> Cmd {
        let mut command = cmd("SCRIPT");
        command.arg("LOAD").arg(&self.text);
        command
    }

    /// A call with these keys; the caller adds the arguments.
    pub(crate) fn call<K: ToRedisArgs>(&self, keys: &[K]) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(self.inner.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }
}

/// First line of a script that writes a few bytes of the state of a move, of the shard map or of a lock, and none of data: a
/// Redis at its `maxmemory` runs it all the same. Without it no VBucket could leave a full Redis, and none that is fenced
/// towards it could go back.
const EVEN_WHEN_FULL: &str = "#!lua flags=allow-oom\n";

/// Returns early when the owner or epoch of the VBucket `KEYS[1]` is another; `ARGV[own]` is the expected epoch.
fn owned(own: usize) -> String {
    format!(
        "local head = redis.call('HMGET', KEYS[1], 'ver', 'own', 'moved')
if not head[1] or not head[2] then return {{'MISSING'}} end
if head[3] then return {{'MOVED', head[3]}} end
if head[2] ~= ARGV[{own}] then return {{'NOTOWNER', head[2]}} end
"
    )
}

/// Reads fields of `KEYS[1]` in portions: Lua's stack holds about 8,000.
const HMGET: &str = "local function hmget(names, from, to)
  local out = {}
  while from <= to do
    local last = math.min(from + 3999, to)
    local got = redis.call('HMGET', KEYS[1], unpack(names, from, last))
    for i = 1, last - from + 1 do out[#out + 1] = got[i] end
    from = last + 1
  end
  return out
end
";

/// Whether an index has fewer entries than were written to it, because another program deleted some. The hash counts
/// them, in a field named after the index; a key that cannot be counted is not an index, and with a count that is no number
/// nobody knows.
const UNLISTED: &str = "local function unlisted(index)
  local count = redis.call('HGET', KEYS[1], 'n' .. string.sub(index, #KEYS[1] + 1))
  local found = redis.pcall('ZCARD', index)
  return type(found) == 'table' or count and found < (tonumber(string.match(count, '^%d+$')) or math.huge)
end
";

/// Adds to the count of the entries of an index. A count that is no number becomes one that no index has, so that whoever reads
/// the index next finds it [`UNLISTED`], and has it rebuilt.
const COUNT: &str = "local function add_to_count(index, change)
  local field = 'n' .. string.sub(index, #KEYS[1] + 1)
  local before = redis.call('HGET', KEYS[1], field)
  if not before or string.match(before, '^%d+$') and #before < 16 then
    return redis.call('HINCRBY', KEYS[1], field, change)
  end
  redis.call('HSET', KEYS[1], field, '9007199254740991')
  return 1
end
";

/// The same without the check, for the sabotaged rule.
const BELIEVED: &str = "local function unlisted() return false end
";

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| Script::new($text));)*

        pub(crate) fn all() -> impl Iterator<Item = &'static Script> {
            [$(&*$name),*].into_iter()
        }
    };
}

scripts! {
    /// KEYS: hash. ARGV: expected version, epoch, then what HSET takes: 'ver', next, field, value, …
    COMMIT = "local head = redis.call('HMGET', KEYS[1], 'ver', 'own', 'moved')
if head[1] == ARGV[1] and head[2] == ARGV[2] and not head[3] then
  redis.call('HSET', KEYS[1], unpack(ARGV, 3))
  return 1
end
if not head[1] or not head[2] then return {'MISSING'} end
if head[3] then return {'MOVED', head[3]} end
if head[2] ~= ARGV[2] then return {'NOTOWNER', head[2]} end
return {'CONFLICT', head[1]}".to_owned();

    /// KEYS: hash, indexes. ARGV: expected version, epoch, for each index the number of entries and the entries, then
    /// what HSET takes. Answers UNINDEXED when an entry is missing.
    COMMIT_INDEXED = format!("{}
if head[1] ~= ARGV[1] then return {{'CONFLICT', head[1]}} end
local at = 3
for i = 2, #KEYS do
  local count = tonumber(ARGV[at])
  local scores = redis.call('ZMSCORE', KEYS[i], unpack(ARGV, at + 1, at + count))
  for j = 1, count do
    if not scores[j] then return {{'UNINDEXED'}} end
  end
  at = at + 1 + count
end
redis.call('HSET', KEYS[1], unpack(ARGV, at))
return 1", owned(2));

    /// KEYS: hash, indexes. ARGV: epoch, for each index the number of entries and the entries. The one script with
    /// several writes: a partial run is harmless, since an index may hold extra entries.
    INDEX = format!("{}{COUNT}
local at = 2
for i = 2, #KEYS do
  local count = tonumber(ARGV[at])
  local added = 0
  local pairs = {{}}
  for j = 1, count do
    pairs[2 * j - 1] = 0
    pairs[2 * j] = ARGV[at + j]
  end
  for j = 1, 2 * count, 4000 do
    added = added + redis.call('ZADD', KEYS[i], unpack(pairs, j, math.min(j + 3999, 2 * count)))
  end
  if added > 0 then add_to_count(KEYS[i], added) end
  at = at + 1 + count
end
return 1", owned(1));

    /// KEYS: hash, streams, parts of each wanted Tab. ARGV: epoch, the version whose marks are known (or nothing), how many
    /// Tabs, their fields, the fields of States. Answers OK, version, Streams, marks (neither at the known version), types,
    /// States, parts as (index of the State, entry, value); UNLISTED when entries of an index are missing.
    LOAD = format!("{}{HMGET}{UNLISTED}
if unlisted(KEYS[2]) then return {{'UNLISTED'}} end
local streams, names = {{}}, {{}}
if head[1] ~= ARGV[2] then streams = redis.call('ZRANGE', KEYS[2], 0, -1) end
for i = 1, #streams do names[i] = 'a:' .. streams[i] end
local marks = hmget(names, 1, #names)
local first = 4 + tonumber(ARGV[3])
local types = hmget(ARGV, 4, first - 1)
local states = hmget(ARGV, first, #ARGV)
local parts = {{}}
local has = false
for i = 3, #KEYS do
  if unlisted(KEYS[i]) then return {{'UNLISTED'}} end
  if redis.call('EXISTS', KEYS[i]) == 1 then has = has or {{}}; has[KEYS[i]] = true end
end
if has then
  for place = first, #ARGV do
    local tab, client = string.match(ARGV[place], '^s:([^ ]+) (.+)$')
    local key = KEYS[1] .. '.parts.' .. tab
    if has[key] then
      for _, entry in ipairs(redis.call('ZRANGEBYLEX', key, '[' .. client, '(' .. client .. '!')) do
        local value = redis.call('HGET', KEYS[1], 's:' .. tab .. ' ' .. entry)
        parts[#parts + 1] = {{place - first, entry, value}}
      end
    end
  end
end
return {{'OK', head[1], streams, marks, types, states, parts}}", owned(1));

    /// KEYS: hash, Tabs. ARGV: epoch, first entry, limit, the version since which the Tabs are known (or nothing). Answers OK,
    /// version, the version since which these are the Tabs, entries, types (neither when they are known).
    TABS = format!("{}{HMGET}{UNLISTED}
local since = redis.call('HGET', KEYS[1], 'tabs') or ''
if since ~= '' and since == ARGV[4] then return {{'OK', head[1], since, false, false}} end
if unlisted(KEYS[2]) then return {{'UNLISTED'}} end
local entries = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[2], '+', 'LIMIT', 0, ARGV[3])
local names = {{}}
for i = 1, #entries do names[i] = 't:' .. entries[i] end
return {{'OK', head[1], since, entries, hmget(names, 1, #names)}}", owned(1));

    /// KEYS: hash, Clients, parts. ARGV: epoch, Tab, first entry, limit, STATES or KEYS. Answers OK, version, entries, the
    /// values of whole States, parts as (entry, value); for KEYS the lengths instead of the values.
    SCAN = format!("{}{HMGET}{UNLISTED}
if unlisted(KEYS[2]) or unlisted(KEYS[3]) then return {{'UNLISTED'}} end
local entries = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[3], '+', 'LIMIT', 0, ARGV[4])
local count = #entries
if count == 0 then return {{'OK', head[1], entries, {{}}, {{}}}} end
local more = redis.call('ZRANGEBYLEX', KEYS[3], '[' .. entries[1], '(' .. entries[count] .. '!')
local names = {{}}
for i = 1, count do names[i] = 's:' .. ARGV[2] .. ' ' .. entries[i] end
for i = 1, #more do names[count + i] = 's:' .. ARGV[2] .. ' ' .. more[i] end
local values
if ARGV[5] == 'STATES' then
  values = hmget(names, 1, #names)
else
  values = {{}}
  for i = 1, #names do values[i] = redis.call('HSTRLEN', KEYS[1], names[i]) end
end
local parts = {{}}
for i = 1, #more do parts[i] = {{more[i], values[count + i]}} end
for i = #values, count + 1, -1 do values[i] = nil end
return {{'OK', head[1], entries, values, parts}}", owned(1));

    /// KEYS: hash. ARGV: epoch, fields. Removes the empty ones.
    SWEEP_FIELDS = format!("{}{HMGET}
local values = hmget(ARGV, 2, #ARGV)
local empty = {{}}
for i = 1, #ARGV - 1 do
  if values[i] == '' then empty[#empty + 1] = ARGV[i + 1] end
end
if #empty == 0 then return 0 end
return redis.call('HDEL', KEYS[1], unpack(empty))", owned(1));

    /// KEYS: hash, index of Streams, Clients or parts, and for Clients the index of parts. ARGV: epoch, the prefix
    /// that makes a field of an entry, entries. Removes those without a field.
    SWEEP_ENTRIES = format!("{}{COUNT}
local gone = {{}}
for i = 3, #ARGV do
  local entry = ARGV[i]
  local is_gone = redis.call('HEXISTS', KEYS[1], ARGV[2] .. entry) == 0
  if is_gone and KEYS[3] then
    is_gone = redis.call('ZLEXCOUNT', KEYS[3], '[' .. entry, '(' .. entry .. '!') == 0
  end
  if is_gone then gone[#gone + 1] = entry end
end
if #gone == 0 then return 0 end
{ZREM}", owned(1));

    /// KEYS: hash, index of Tabs, Clients of each Tab. ARGV: epoch, Tabs. Removes those without a type and without
    /// States.
    SWEEP_TABS = format!("{}{COUNT}
local gone = {{}}
for i = 2, #ARGV do
  if redis.call('HEXISTS', KEYS[1], 't:' .. ARGV[i]) == 0 and redis.call('EXISTS', KEYS[i + 1]) == 0 then
    gone[#gone + 1] = ARGV[i]
  end
end
if #gone == 0 then return 0 end
{ZREM}", owned(1));

    /// KEYS: hash, index. ARGV: epoch, the least number of entries. Records the actual number; answers 0 when it is
    /// less.
    COUNTED = format!("{}
local count = redis.call('ZCARD', KEYS[2])
if count < tonumber(ARGV[2]) then return 0 end
local field = 'n' .. string.sub(KEYS[2], #KEYS[1] + 1)
if count == 0 then redis.call('HDEL', KEYS[1], field) else redis.call('HSET', KEYS[1], field, count) end
return 1", owned(1));

    /// KEYS: hash. ARGV: version, epoch, deployment. Creates the VBucket if it does not exist; answers its
    /// deployment.
    CREATE = "local found = redis.call('HGET', KEYS[1], 'of')
if found then return found end
if redis.call('EXISTS', KEYS[1]) == 1 then return '' end
redis.call('HSET', KEYS[1], 'ver', ARGV[1], 'own', ARGV[2], 'of', ARGV[3])
return ARGV[3]".to_owned();

    /// KEYS: hash. ARGV: the version of a VBucket that was never written. Removes the VBucket at that version.
    DISCARD = "if redis.call('HGET', KEYS[1], 'ver') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])".to_owned();

    /// KEYS: hash, new name for a key that is no hash. ARGV: version, epoch, deployment. Rewrites the head; all other
    /// fields stay.
    MEND = "local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('RENAME', KEYS[1], KEYS[2]) end
redis.call('HSET', KEYS[1], 'ver', ARGV[1], 'own', ARGV[2], 'of', ARGV[3])
return 1".to_owned();

    /// KEYS: the shard map. ARGV: the epoch that it has now (0: there is none), or '<' for any below the new one; token;
    /// the new epoch; the new map. Answers 1; or a word and what was found in a list.
    SET_MAP = [EVEN_WHEN_FULL, "local found = redis.call('HMGET', KEYS[1], 'epoch', 'token')
local epoch = tonumber(found[1] or '0')
if found[2] and tonumber(found[2]) > tonumber(ARGV[2]) then return {'FENCED', found[2]} end
if ARGV[1] == '<' and epoch >= tonumber(ARGV[3]) or ARGV[1] ~= '<' and epoch ~= tonumber(ARGV[1]) then
  return {'EPOCH', tostring(epoch)}
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'token', ARGV[2], 'map', ARGV[4])
return 1"].concat();

    /// KEYS: hash. ARGV: the epoch that it has, what to write as moved. Always writes, so that a WAIT on the same
    /// connection waits for the fence, also for one that another operator has put. Answers 2 when there was none, 1 when
    /// there was this one.
    FENCE = [EVEN_WHEN_FULL, "local head = redis.call('HMGET', KEYS[1], 'ver', 'own', 'moved')
if not head[1] or not head[2] then return {'MISSING'} end
if head[2] ~= ARGV[1] then return {'NOTOWNER', head[2]} end
if head[3] and head[3] ~= ARGV[2] then return {'MOVED', head[3]} end
redis.call('HSET', KEYS[1], 'moved', ARGV[2])
return head[3] and 1 or 2"].concat();

    /// KEYS: hash, staged hash, then index, staged index, … ARGV: the new epoch, the time in microseconds until which
    /// this may be done. The switch: the staged copy is put in place, the hash last. Only the hash counts, so half of it
    /// is as good as none.
    SWITCH = [EVEN_WHEN_FULL, NOW, "local own = redis.call('HGET', KEYS[1], 'own')
if own and tonumber(own) >= tonumber(ARGV[1]) then return {'SEEN', own} end
if now > tonumber(ARGV[2]) then return {'LATE'} end
for i = 2, #KEYS, 2 do
  if redis.call('PERSIST', KEYS[i]) == 0 and redis.call('EXISTS', KEYS[i]) == 0 then return {'GONE'} end
end
redis.call('HSET', KEYS[2], 'own', ARGV[1])
redis.call('HDEL', KEYS[2], 'moved')
for i = 3, #KEYS, 2 do redis.call('RENAME', KEYS[i + 1], KEYS[i]) end
redis.call('RENAME', KEYS[2], KEYS[1])
return 1"].concat();

    /// KEYS: hash, indexes. ARGV: epoch, moved. Leaves a tombstone. The hash is the last: as long as it is whole, the
    /// indexes to remove can be read from it.
    RETIRE = [EVEN_WHEN_FULL, "local head = redis.call('HMGET', KEYS[1], 'ver', 'own', 'moved', 'of')
if head[2] ~= ARGV[1] or head[3] ~= ARGV[2] then return {'CHANGED'} end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'ver', head[1], 'own', head[2], 'moved', head[3], 'of', head[4])
return 1"].concat();

    /// KEYS: hash. ARGV: epoch, moved, version, deployment, whether an older copy may go (1 or 0). A tombstone that turns away every switch up to this epoch; what
    /// was there under a lower one is an old copy. Always writes, for WAIT.
    BAR = [EVEN_WHEN_FULL, "local own = redis.call('HGET', KEYS[1], 'own')
local moved = redis.call('HGET', KEYS[1], 'moved')
local is_bar = own == ARGV[1] and moved == ARGV[2] and redis.call('HEXISTS', KEYS[1], 'bar') == 1
if own and tonumber(own) >= tonumber(ARGV[1]) and not is_bar then return {'SEEN', own} end
local head = 3 + (moved and 1 or 0) + redis.call('HEXISTS', KEYS[1], 'bar') + redis.call('HEXISTS', KEYS[1], 'tabs')
if ARGV[5] ~= '1' and redis.call('HLEN', KEYS[1]) > head then return {'COPY'} end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'ver', ARGV[3], 'own', ARGV[1], 'moved', ARGV[2], 'of', ARGV[4], 'bar', '1')
return 1"].concat();

    /// KEYS: hash. ARGV: the epoch that it has, moved or nothing, the new epoch, the time in microseconds until which this
    /// may be done. The source owns the VBucket again.
    UNFENCE = [EVEN_WHEN_FULL, NOW, "local head = redis.call('HMGET', KEYS[1], 'own', 'moved')
if head[1] ~= ARGV[1] or (head[2] or '') ~= ARGV[2] then return {'CHANGED'} end
if now > tonumber(ARGV[4]) then return {'LATE'} end
redis.call('HSET', KEYS[1], 'own', ARGV[3])
redis.call('HDEL', KEYS[1], 'moved')
return 1"].concat();

    /// KEYS: the log of moves. ARGV: how many lines stay, about; the line.
    LOG_MOVE = [EVEN_WHEN_FULL, "redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'move', ARGV[2])
return 1"].concat();

    /// KEYS: the settings of movers. ARGV: fields and values.
    SET_RATES = [EVEN_WHEN_FULL, "redis.call('HSET', KEYS[1], unpack(ARGV))
return 1"].concat();

    /// KEYS: hash. ARGV: version, epoch, deployment. Creates a VBucket anew where there is at most a tombstone with a lower
    /// epoch.
    ANEW = [EVEN_WHEN_FULL, "local head = redis.call('HMGET', KEYS[1], 'own', 'moved', 'of', 'bar')
local fields = 1 + (head[1] and 1 or 0) + (head[2] and 1 or 0) + (head[3] and 1 or 0) + (head[4] and 1 or 0)
if head[1] and (not head[2] or tonumber(head[1]) >= tonumber(ARGV[2])) then return {'SEEN', head[1]} end
if redis.call('HLEN', KEYS[1]) > fields then return {'COPY'} end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'ver', ARGV[1], 'own', ARGV[2], 'of', ARGV[3])
return 1"].concat();

    /// KEYS: hash. ARGV: deployment marked as new, deployment.
    FINISH = "if redis.call('HGET', KEYS[1], 'of') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'of', ARGV[2])
return 1".to_owned();

    /// KEYS: a string. ARGV: whether a value is expected (1 or 0), which, whether a value is to be set (1 or 0),
    /// which. Answers 1, or in a list the value found; keeps the expiry.
    SWAP = "local found = redis.call('GET', KEYS[1])
if ARGV[1] == '1' and found ~= ARGV[2] or ARGV[1] == '0' and found then return {found} end
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], ARGV[4], 'KEEPTTL')
else
  redis.call('DEL', KEYS[1])
end
return 1".to_owned();

    /// KEYS: a fenced value. ARGV: token, value. Answers 1, or in a list the higher token.
    FENCED_SET = "local highest = redis.call('HGET', KEYS[1], 'token')
if highest and tonumber(highest) > tonumber(ARGV[1]) then return {highest} end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'value', ARGV[2])
return 1".to_owned();

    /// KEYS: a lock. ARGV: holder, microseconds, the least token or nothing. Answers the token, or in a list the microseconds
    /// for which it is still held.
    ACQUIRE = format!("{EVEN_WHEN_FULL}{NOW}{LOCK}
if found[2] and found[2] ~= '' and till > now then return {{string.format('%.0f', till - now)}} end
local token = string.format('%.0f', math.max(tonumber(found[1] or '0') + 1, now, tonumber(ARGV[3] or '0')))
redis.call('HSET', KEYS[1], 'token', token, 'holder', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
return token");

    /// KEYS: a lock. ARGV: holder, microseconds. If this holder still holds it, extends it. Answers whether it did.
    RENEW = format!("{EVEN_WHEN_FULL}{NOW}{LOCK}
if found[2] ~= ARGV[1] or till <= now then return 0 end
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
return 1");

    /// KEYS: a lock. ARGV: holder. If this holder still holds it, frees it. Answers whether it did.
    RELEASE = format!("{EVEN_WHEN_FULL}{NOW}{LOCK}
if found[2] ~= ARGV[1] or till <= now then return 0 end
redis.call('HSET', KEYS[1], 'holder', '')
return 1");
}

/// Removes `gone` from the index `KEYS[2]`, and from the count of its entries.
const ZREM: &str = "local removed = redis.call('ZREM', KEYS[2], unpack(gone))
if removed > 0 and add_to_count(KEYS[2], -removed) <= 0 then
  redis.call('HDEL', KEYS[1], 'n' .. string.sub(KEYS[2], #KEYS[1] + 1))
end
return removed";

/// The time of Redis in microseconds: below 2⁵³, so exact as a Lua number.
const NOW: &str = "local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
";

/// The state of a lock.
const LOCK: &str = "local found = redis.call('HMGET', KEYS[1], 'token', 'holder', 'until')
local till = tonumber(found[3] or '0')
";
