local suspended = obj.spec ~= nil and obj.spec.suspend == true

local actions = {}
actions["validate"] = {
  ["iconClass"] = "fa fa-fw fa-check-double",
  ["displayName"] = "Validate now",
}
actions["rebuild"] = {
  ["iconClass"] = "fa fa-fw fa-recycle",
  ["displayName"] = "Rebuild, replica by replica",
  ["disabled"] = suspended,
}
actions["suspend"] = {
  ["iconClass"] = "fa fa-fw fa-pause",
  ["displayName"] = "Suspend changes",
  ["disabled"] = suspended,
}
actions["resume"] = {
  ["iconClass"] = "fa fa-fw fa-play",
  ["displayName"] = "Resume changes",
  ["disabled"] = not suspended,
}
return actions
