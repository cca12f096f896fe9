from server.client.cli import main

main()
