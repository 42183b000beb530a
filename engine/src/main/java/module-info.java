/** Dirty tracking, the RAM-block log, the migration stream and the precopy loop. */
module dev.tidemark.engine {
  requires transitive dev.tidemark.ffm;
  requires static jdk.incubator.vector;
  requires jdk.management;

  exports dev.tidemark.engine.bitmap;
  exports dev.tidemark.engine.log;
  exports dev.tidemark.engine.stream;
}
