/** Dirty tracking, the RAM-block log, the migration stream and the precopy loop. */
module dev.tidemark.engine {
  requires transitive dev.tidemark.ffm;
  requires jdk.management;
  requires static jdk.incubator.vector;

  exports dev.tidemark.engine.bitmap;
  exports dev.tidemark.engine.device;
  exports dev.tidemark.engine.log;
  exports dev.tidemark.engine.migrate;
  exports dev.tidemark.engine.source;
  exports dev.tidemark.engine.source.dma;
  exports dev.tidemark.engine.source.plan;
  exports dev.tidemark.engine.stream;
}
