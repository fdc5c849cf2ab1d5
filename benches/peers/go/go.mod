module corelane-peers

go 1.22
