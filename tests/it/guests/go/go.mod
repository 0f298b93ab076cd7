module wcompose.test/guest

go 1.21
