-- First what kstatus says of any resource: deletion, generation, Stalled, Reconciling. Then whether the index is proven to equal its table.

-- A check that could not see, for a reason that passes by itself.
local passing = {
  NotChecked = true,
  RollingOut = true,
  RebuildSlotBusy = true,
  BucketNotCompared = true,
  DigestSpecDiffers = true,
  NoServingReplica = true,
  NoPods = true,
  StatementCancelled = true,
  ConnectionLost = true,
  TooManyConnections = true,
}

-- Drift that replicas repair by themselves.
local repairing = {
  DriftFound = true,
  Repairing = true,
}

local function result(status, message)
  return { status = status, message = message or "" }
end

if obj.metadata.deletionTimestamp ~= nil then
  return result("Progressing", "The index is being deleted")
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return result("Progressing", "Waiting for the operator to look at the index")
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
local ready = conditions.Ready or { status = "Unknown", message = "Ready is not told" }
local consistent = conditions.Consistent or { status = "Unknown", reason = "", message = "Consistent is not told" }

if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  return result("Degraded", conditions.Stalled.message)
end
if conditions.Reconciling ~= nil and conditions.Reconciling.status == "True" then
  return result("Progressing", conditions.Reconciling.message .. ". " .. ready.message)
end

-- A difference that waits for a person says more than how many replicas serve meanwhile.
if consistent.status == "False" and consistent.reason ~= "Suspended" and not repairing[consistent.reason] then
  return result("Degraded", consistent.message)
end
if ready.status ~= "True" then
  return result("Progressing", ready.message)
end
if consistent.status == "False" and repairing[consistent.reason] then
  return result("Progressing", consistent.message)
end
-- What nobody could look at is never healthy.
if consistent.status == "Unknown" then
  return result(passing[consistent.reason] and "Progressing" or "Degraded", consistent.message)
end
if obj.spec.suspend then
  return result("Suspended", consistent.message)
end
if consistent.status ~= "True" then
  return result("Progressing", consistent.message)
end
return result("Healthy", consistent.message)
