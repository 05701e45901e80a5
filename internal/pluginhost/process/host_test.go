package process_test

func playHost() {}
