package dev.tidemark.bench;

import dev.tidemark.bench.cli.Tidemark;

/** Where {@code java -jar tidemark.jar} starts. */
public final class Main {
  private Main() {}

  public static void main(String[] args) {
    System.exit(Tidemark.run(args));
  }
}
