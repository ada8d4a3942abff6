# What an instance of kmirror may do in Consul, and no more. For the default
# prefix "kmirror"; with another one, as in
#
#   coordination: {consul: {prefix: kafka/mirror}}
#
# write it in key_prefix, and its last part ("mirror") in service.
#
#   consul acl policy create -name kmirror -rules @consul-policy.hcl
#   consul acl token create -description kmirror -policy-name kmirror
#
# and in mirror.yaml: token: ${CONSUL_HTTP_TOKEN}

# Members, the leader's lock, assignments.
key_prefix "kmirror/" {
  policy = "write"
}

# A session for each life, on the node of the agent that is asked. Give the name
# of the node instead of the prefix where you know it.
session_prefix "" {
  policy = "write"
}

# The instances as a service with a health check.
service "kmirror" {
  policy = "write"
}
